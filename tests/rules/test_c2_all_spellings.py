"""C2, at length: what is spelt in another way is neither built again nor, in a clean build, anything else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bqbuild.core.records import NodeName
from tests.llm_server import Body, LlmServer
from tests.mutations import answer
from tests.rules.test_c7_the_same_from_any_road import clean_build
from tests.space import Space, statuses

MODELS, PROFILES = "models/models.yml", "project/profiles.yml"
CLEAN, SCORE, MEASURE, WORDS = (
    "models/clean.sql",
    "models/scoring/score.py",
    "models/scoring/measure.py",
    "project/macros/words.sql",
)


def careless(body: Body) -> str:
    """Answers, but for questions on Japan, which come out empty, and are so again when it is asked once more."""
    text = "\n".join(str(message["content"]) for message in body["messages"])
    return "{}" if "question, answer and hint" in text and "Japan" in text else answer(body)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    """The project with every kind of thing that can be spelt in two ways, built once; to be copied."""
    with LlmServer(careless) as server:
        space = Space.copy("mutations", tmp_path_factory.mktemp("spellings") / "built", server)
        space.edit(MODELS, "matrix: {grade: [primary, graduate]}", MATRIX)
        space.edit(MODELS, "    prompt: ask\n", "    prompt: ask\n    max_error_rate: 0.9\n")
        space.edit(MODELS, "columns: {verdict: {values", "columns: {grounds: string, verdict: {values")
        space.edit(MODELS, "output: {format: choice, columns: {grounds", "output: {format: json, columns: {grounds")
        space.edit("prompts/judge.md", "Say yes or no.", "Say in JSON with the keys verdict and grounds: yes or no.")
        server.answer = lambda body: _verdict(careless(body), body)
        assert set(statuses(space.run()).values()) == {"success"}
        assert space.rows("select count(*) as n from questions__errors")[0]["n"]
        yield space


def _verdict(text: str, body: Body) -> str:
    asked = "\n".join(str(message["content"]) for message in body["messages"])
    return f'{{"grounds": "so {len(asked)}", "verdict": "{text}"}}' if "verdict and grounds" in asked else text


MATRIX = "matrix: {grade: [primary, graduate], form: [open], exclude: [{grade: primary, form: closed}]}"

EDITS = {
    "SQL keywords": (CLEAN, "select topic, text, year from", "SELECT topic, text, year FROM"),
    "SQL comment in the middle": (CLEAN, "topic, text, year from", "topic, /* what it is on */ text, year from"),
    "SQL quotes": (CLEAN, "select topic, text, year", 'select "topic", text, "year"'),
    "SQL parentheses": (
        CLEAN,
        "where {{ says_something('text') }}\nunion",
        "where ({{ says_something('text') }})\nunion",
    ),
    "SQL Jinja comment": (CLEAN, "select topic, text, null", "{# no year here #}\nselect topic, text, null"),
    "SQL macro by another name": (CLEAN, "{{ says_something('text') }}\nunion", "length(text) >= 5\nunion"),
    "unused macro": (WORDS, "{% macro about", "{% macro unused() %}x{% endmacro %}\n{% macro about"),
    "Jinja comment in a macro's file": (WORDS, "{% macro about", "{# what it is on #}\n{% macro about"),
    "parameter of a macro by another name": (
        WORDS,
        "says_something(column) %}length({{ column }})",
        "says_something(c) %}length({{ c }})",
    ),
    "order of matrix keys": (
        MODELS,
        MATRIX,
        "matrix: {form: [open], exclude: [{form: closed, grade: primary}], grade: [primary, graduate]}",
    ),
    "matrix as a block": (
        MODELS,
        MATRIX,
        "matrix:\n      grade:\n        - primary\n        - 'graduate'\n      form: [\"open\"]\n"
        "      exclude: [{grade: primary, form: closed}]",
    ),
    "order of output columns": (MODELS, "{question: string, answer: string}", "{answer: string, question: string}"),
    "order of a judge's columns": (
        MODELS,
        '{grounds: string, verdict: {values: ["yes", "no"]}}',
        '{verdict: {values: ["yes", "no"]}, grounds: string}',
    ),
    "order of keys in a rule": (
        MODELS,
        "{columns: [question], keep: difficulty desc}",
        "{keep: difficulty desc, columns: [question]}",
    ),
    "case of an ORDER BY": (MODELS, "keep: difficulty desc", "keep: difficulty  DESC"),
    "comment in a rule": (MODELS, '"length(question) > 3 and words > 0"', '"length(question) > 3 AND words>0 -- so"'),
    "order of AND in a rule": (MODELS, "length(question) > 3 and words > 0", "words > 0 and length(question) > 3"),
    "case in accept": (MODELS, "accept: verdict = 'yes'", "accept: (verdict)='yes'"),
    "prompt with .md": (MODELS, "prompt: ask", "prompt: 'ask'"),
    "data tests of columns": (
        MODELS,
        "  - name: scored\n",
        "  - name: scored\n    tests: [{unique: {column: text}}]\n",
    ),
    "price": (PROFILES, "model: critic-1", "model: critic-1\n        price: {input: 1, output: 2}"),
    "limits": (PROFILES, "model: writer-1", "model: writer-1\n        timeout: 9"),
    "params of a connection": (PROFILES, "params: {temperature: 0.7}", "params: {temperature: 0.70, top_p: null}"),
    "a variable that nobody reads": ("project/bqbuild.yml", "tone: plain", "tone: plain, unread: 3"),
    "Jinja blanks": ("prompts/ask.md", "{{ grade }}", "{{grade}}"),
    "Jinja quotes": ("prompts/ask.md", 'include "partials/rules"', "include 'partials/rules.md'"),
    "Jinja comment": ("prompts/ask.md", "{{ text }}", "{{ text }}{# the note #}"),
    "end of a prompt": ("prompts/label.md", "{{ question }}\n", "{{ question }}\n\n\n"),
    "front matter": ("prompts/label.md", "user:\n", "---\ndescription: how hard\ntags: [labels]\n---\nuser:\n"),
    "Python comment": (MEASURE, "LEAST = 1", "LEAST = 1  # of words"),
    "Python layout": (
        MEASURE,
        "max(LEAST, len(text.split()))",
        "max(\n        LEAST,\n        len(text.split()),\n    )",
    ),
    "Python docstring": (MEASURE, "def words(text):\n", 'def words(text):\n    """How many words."""\n'),
    "Python that nobody reaches": (MEASURE, "return len(text)\n", "return len(text) + 1\n"),
    "mix text": (MODELS, "var('label') }}: {{ question }}", "var('label')}}: {{question}}"),
    "lists written as one": (MODELS, "by: [grade]", "by: grade"),
}


@pytest.mark.parametrize("name", EDITS)
def test_c2_another_spelling_builds_nothing_and_a_clean_build_is_the_same(
    built: Space, tmp_path: Path, name: str
) -> None:
    space = Space.copy_of(built, tmp_path / "edited")
    before = space.digests()
    space.edit(*EDITS[name])
    results = space.run()
    assert set(statuses(results).values()) == {"cached"}
    assert space.sent == 0
    assert space.digests() == before
    assert clean_build(space, tmp_path / "clean").digests() == before


SCORES = """
models:
  - name: scores
    kind: evaluate
    from: [{model: kept, question: question, choices: grade, answer: answer, where: "words > 1 and length(answer) > 2"}]
    models: {small: ./weights}
"""


def test_c2_another_spelling_of_what_is_scored_is_the_same_definition(built: Space, tmp_path: Path) -> None:
    space = Space.copy_of(built, tmp_path / "edited")
    space.write("models/scores.yml", SCORES)
    before = _definition(space, "scores")
    space.edit("models/scores.yml", "words > 1 and length(answer) > 2", "LENGTH(answer)>2 AND (words > 1)")
    assert _definition(space, "scores") == before
    space.edit("models/scores.yml", "words > 1", "words > 2")
    assert _definition(space, "scores") != before


def _definition(space: Space, name: str) -> str:
    with space.session() as session:
        return session.recipe(NodeName(name)).digest
