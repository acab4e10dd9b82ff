"""C8: for every node `plan` says whether it will run and why: the file and line, the key, the column, the rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bqbuild.plan.plan import Step
from tests.llm_server import LlmServer
from tests.space import Space

MODELS = "models/models.yml"
PROFILES = "project/profiles.yml"
PROJECT = "project/bqbuild.yml"
MACROS = "project/macros/macros.sql"
CLEAN = "models/staging/clean_notes.sql"


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    """A project that plans leave as it is: `capitals` with an included prompt, macros, a variable in a prompt, front
    matter with parameters, a judge and a Python model with a helper, built once."""
    with LlmServer() as server:
        space = rich_project(tmp_path_factory.mktemp("rich") / "capitals", server)
        space.run()
        yield space


def rich_project(root: Path, server: LlmServer) -> Space:
    """The project of `rich`, not built yet."""
    space = Space.copy("capitals", root, server)
    space.write("prompts/manner.md", "---\ndescription: how\n---\nBe brief.\nBe kind.\n")
    space.write("prompts/judge.md", "---\nparams: {max_tokens: 5}\n---\nIs this good? {{ question }}\n")
    space.write(
        MACROS,
        "{% macro long(column) %}length({{ column }}) >= {{ var('min_words') }}{% endmacro %}\n\n"
        "{% macro tone() %}\nFormal tone.\n{% endmacro %}\n",
    )
    space.edit("prompts/ask.md", "{{ text }}", "{% include 'manner.md' %}\n{{ tone() }} {{ var('who') }}\n{{ text }}")
    space.edit(PROJECT, "min_words: 3", "min_words: 3, who: you")
    space.edit(CLEAN, "length(text) >= {{ var('min_words') }}", "{{ long('text') }}")
    space.edit(
        MODELS,
        "    rules:\n",
        "    rules:\n      - name: good\n        judge:\n          prompt: judge\n          llm: writer\n"
        "          params: {seed: 1}\n"
        "          accept: score > 0\n          output: {format: choice, columns: {score: {scale: [1, 5]}}}\n",
    )
    space.write("models/loud.py", "from helper import shout\n\n\ndef loud(batch):\n    return shout(batch)\n")
    space.write("models/helper.py", "AT = 0\n\n\ndef shout(batch):\n    # louder\n    return batch.slice(AT)\n")
    space.write("models/loud.yml", "models: [{name: loud, kind: python, from: kept, function: 'loud.py:loud'}]\n")
    return space


EDITS = {
    "prompt": (
        "prompts/ask.md", "Write one", "Write a", "questions", "prompt `ask` changed", "prompts/ask.md:6",
    ),
    "system message": (
        "prompts/ask.md", "exam", "quiz", "questions", "the system message of prompt `ask` changed", "prompts/ask.md:3",
    ),
    "included prompt": (
        "prompts/manner.md", "kind", "firm", "questions", "prompt `manner`, which prompt `ask` includes, changed",
        "prompts/manner.md:5",
    ),
    "macro of a prompt": (
        MACROS, "Formal", "Casual", "questions", "macro `tone`, which prompt `ask` calls, changed", f"{MACROS}:4",
    ),
    "macro of SQL": (
        MACROS, ") >=", ") >", "clean_notes", "macro `long`, which the SQL calls, changed", f"{MACROS}:1",
    ),
    "variable of a prompt": (
        PROJECT, "who: you", "who: me", "questions", 'variable `who` changed from "you" to "me"', f"{PROJECT}:3",
    ),
    "variable of SQL": (
        PROJECT, "words: 3", "words: 4", "clean_notes",
        "variable `min_words`, which the SQL reads, changed from 3 to 4", f"{PROJECT}:3",
    ),
    "SQL": (CLEAN, "id, topic", "id, upper(topic) as topic", "clean_notes", "the SQL changed", f"{CLEAN}:1"),
    "LLM": (
        PROFILES, "model: mock", "model: other", "answers", '`model` of the LLM changed from "mock" to "other"',
        f"{PROFILES}:11",
    ),
    "parameter of a connection": (
        PROFILES, "        timeout: 120", "        params: {top_p: 0.5}\n        timeout: 120", "labelled",
        "`params.top_p` is new: 0.5", f"{PROFILES}:14",
    ),
    "parameter of a prompt": (
        "prompts/judge.md", "max_tokens: 5", "max_tokens: 6", "kept",
        "`params.max_tokens` of rule `good` changed from 5 to 6", "prompts/judge.md:2",
    ),
    "parameter of a judge": (
        MODELS, "seed: 1", "seed: 2", "kept", "`params.seed` of rule `good` changed from 1 to 2", f"{MODELS}:35",
    ),
    "parameter of a model": (
        MODELS, "temperature: 0.7", "temperature: 0.8", "questions", "`params.temperature` changed from 0.7 to 0.8",
        f"{MODELS}:13",
    ),
    "matrix": (
        MODELS, "undergraduate]", "graduate]", "questions",
        "`matrix.grade` gained `graduate`, lost `undergraduate`", f"{MODELS}:12",
    ),
    "output column": (
        MODELS, "answer: string}}\n  - name: answers", "answer: string, why: string}}\n  - name: answers", "questions",
        "`output.columns.why` is new", f"{MODELS}:14",
    ),
    "rule": (MODELS, "> 3", "> 4", "kept", "rule `long_enough` changed", f"{MODELS}:38"),
    "Python helper": (
        "models/helper.py", "slice(AT)", "slice(AT, 9)", "loud", "the code of `shout` changed", "models/helper.py:6",
    ),
    "Python constant": (
        "models/helper.py", "AT = 0", "AT = 1", "loud", "the code of `AT` changed", "models/helper.py:1",
    ),
    "where": (
        MODELS, "    from: clean_notes\n", "    from: clean_notes\n    where: topic <> 'Japan'\n", "questions",
        "`where` is new", f"{MODELS}:10",
    ),
    "version": (
        MODELS, "    from: clean_notes\n", "    from: clean_notes\n    version: 2\n", "questions", "`version` is new",
        f"{MODELS}:10",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "model", "message", "place"), EDITS.values(), ids=EDITS)
def test_c8_an_edit_is_named_with_file_and_line(
    rich: Space, file: str, old: str, new: str, model: str, message: str, place: str
) -> None:
    before = rich.read(file)
    try:
        rich.edit(file, old, new)
        planned = step(rich, model)
    finally:
        rich.write(file, before)
    assert planned.action == "build"
    reasons = {reason.message: reason.where for reason in planned.reasons if reason.code == "changed"}
    assert list(reasons) == [message]
    where = reasons[message]
    assert where is not None
    assert f"{where.file}:{where.line}" == place


def step(space: Space, name: str) -> Step:
    """What is planned for a model."""
    return next(step for step in space.plan().steps if step.name == name)


@pytest.fixture
def noted(tmp_path: Path, llm_server: LlmServer) -> Space:
    """The first two models of `capitals`, built; plans move nothing, but the notes will change."""
    space = Space.copy("capitals", tmp_path / "noted", llm_server)
    space.run("clean_notes", "questions")
    return space


def messages(space: Space, name: str, *, fast: bool = False) -> list[str]:
    """The reasons for one of the first two models."""
    steps = space.plan("clean_notes", "questions", fast=fast).steps
    return [reason.message for step in steps if step.name == name for reason in step.reasons]


def test_c8_rows_of_inputs_are_counted_by_what_became_of_them(noted: Space) -> None:
    notes = noted.read("project/sources/notes.jsonl").splitlines()
    notes[0] = notes[0].replace("Paris", "Lutetia")
    del notes[1]
    notes += [f'{{"id": "n{number}", "topic": "Tides", "text": "The moon, {number}."}}' for number in range(3)]
    noted.write("project/sources/notes.jsonl", "\n".join(notes) + "\n")
    told = "3 rows added, 1 removed, 1 changed in `text`"
    assert messages(noted, "clean_notes") == [f"`notes`: {told}"]
    assert messages(noted, "questions") == [f"`clean_notes`: {told}"]
    planned = next(step for step in noted.plan("clean_notes", "questions").steps if step.name == "questions")
    assert (planned.new_calls.json(), planned.cached_calls.json()) == (8, 4)
    # the tables are there by now, but nobody looks into them
    assert messages(noted, "questions", fast=True) == ["`clean_notes` has other content in `id`, `text`, `topic`"]


def test_c8_a_fast_plan_counts_no_rows(noted: Space) -> None:
    noted.write(
        "project/sources/notes.jsonl",
        noted.read("project/sources/notes.jsonl") + '{"id": "n", "topic": "Tides", "text": "The moon."}\n',
    )
    assert messages(noted, "clean_notes", fast=True) == ["depends on what `notes` will contain"]


def test_c8_a_column_more_is_named(noted: Space) -> None:
    noted.edit(CLEAN, "id, topic, text", "id, topic, text, length(text) as size")
    assert messages(noted, "questions") == ["what it reads of `clean_notes` gained `size`"]
    planned = next(step for step in noted.plan("clean_notes", "questions").steps if step.name == "questions")
    assert (planned.new_calls.json(), planned.cached_calls.json()) == (0, 8)
