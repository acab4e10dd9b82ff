"""C5, at length: what is in a call's key and what is not; equal requests are sent once, those in flight included."""

from __future__ import annotations

from pathlib import Path

import pytest

from bqbuild.core.events import NodeResult
from tests.llm_server import LlmServer
from tests.mutations import MODELS, answer
from tests.space import Space, statuses

CHOICE = "    output: {format: choice, columns: {difficulty"


@pytest.fixture
def project(tmp_path: Path, llm_server: LlmServer) -> Space:
    """The project `mutations`, not built yet: 6 notes × 2 grades."""
    llm_server.answer = answer
    return Space.copy("mutations", tmp_path / "project", llm_server)


def new_calls(results: dict[str, NodeResult], *names: str) -> list[int]:
    """The calls that each of the nodes bought."""
    return [results[name].counts.new_calls for name in names]


def test_c5_equal_requests_of_two_models_in_flight_at_once_are_sent_once(project: Space) -> None:
    models = project.read(MODELS)
    twin = models[models.index("  - name: questions") : models.index("  - name: answers")]
    project.write("models/twin.yml", "models:\n" + twin.replace("name: questions", "name: twin"))
    project.edit("project/profiles.yml", "model: writer-1", "model: writer-1\n        max_concurrency: 64")
    project.server.delay = 0.5  # long enough for both models to have asked for all that they want
    results = project.run("clean", "scored", "questions", "twin")
    assert project.sent == 12
    assert project.server.most_in_flight == 12
    assert sum(new_calls(results, "questions", "twin")) == 12
    assert results["questions"].counts.rows == results["twin"].counts.rows == 12


def test_c5_another_parser_costs_no_call_and_the_old_one_is_found_again(project: Space) -> None:
    project.run()
    before = project.digests()["questions"]
    for old, new in [("{format: json, c", "{format: tags, c"), ("{format: tags, c", "{format: tags, explode: true, c")]:
        project.edit(MODELS, old, new)
        results = project.run("clean", "scored", "questions")
        assert project.sent == 0
        assert results["questions"].status == "success"
        assert project.digests()["questions"] != before or "explode" in new
    project.edit(MODELS, "{format: tags, explode: true, c", "{format: json, c")
    assert project.run("clean", "scored", "questions")["questions"].status == "cached"
    assert project.digests()["questions"] == before


def test_c5_more_samples_and_votes_and_draws_buy_the_difference(project: Space) -> None:
    project.edit(MODELS, "    matrix:", "    samples: 3\n    matrix:")
    project.edit(MODELS, CHOICE, "    votes: 3\n" + CHOICE)
    names = ("questions", "labelled")
    first = project.run()
    assert new_calls(first, "questions") == [36]
    project.edit(MODELS, "samples: 3", "samples: 5")
    # samples of one request are equal here, and so are the labels asked for about them
    assert new_calls(project.run(), *names) == [24, 0]
    project.edit(MODELS, "votes: 3", "votes: 5")
    assert new_calls(project.run(), *names) == [0, 24]
    for more, fewer in (("samples: 5", "samples: 3"), ("votes: 5", "votes: 3")):
        project.edit(MODELS, more, fewer)
        project.run()
        assert project.sent == 0


def test_c5_a_schema_is_in_the_key_only_where_it_is_declared_to_be_sent(project: Space) -> None:
    project.run()
    parse = ("clean", "scored", "questions")
    columns = "columns: {question: string, answer: string}"
    project.edit(MODELS, columns, "columns: {question: string, answer: string, hint: string}")
    assert new_calls(project.run(*parse), "questions") == [0]
    project.edit(MODELS, "{format: json, columns: {question", "{format: json, constrain: true, columns: {question")
    assert new_calls(project.run(*parse), "questions") == [12]
    assert all("response_format" in body for body in project.server.requests[-12:])
    project.edit(MODELS, ", hint: string}", "}")
    assert new_calls(project.run(*parse), "questions") == [12]
    project.edit(MODELS, columns, "columns: {answer: {type: string, description: short}, question: string}")
    assert new_calls(project.run(*parse), "questions") == [0]
    project.edit(MODELS, "constrain: true, ", "")
    assert new_calls(project.run(*parse), "questions") == [0]


REFACTORED = [
    ("project/macros/words.sql", "the country {{ topic }}", "{{ 'the country ' ~ topic }}"),
    ("prompts/ask.md", "{{ about(topic) }}", "the country {{ topic }}"),
    ("prompts/ask.md", '{% include "partials/rules" %}', "Answer in JSON with question, answer and hint.\n"),
    ("prompts/ask.md", "{{ grade }} students", "{% if grade %}{{ grade }}{% endif %} students"),
    ("prompts/ask.md", "{{ text }}", "{% set said = text %}{{ said }}"),
    ("prompts/ask.md", "{{ var('tone') }}", "plain"),
]


def test_c5_a_prompt_refactored_to_the_same_text_costs_no_call_and_stops_there(project: Space) -> None:
    project.run()
    for edit in REFACTORED:
        project.edit(*edit)
        ended = statuses(project.run())
        assert project.sent == 0, edit
        assert ended.pop("questions") == "success", edit
        assert set(ended.values()) == {"cached"}, edit


def test_c5_names_of_nodes_connections_and_prompts_are_in_no_key(project: Space) -> None:
    project.run()
    before = project.digests()["blend"]
    project.write("prompts/asked_anew.md", project.read("prompts/ask.md"))
    project.edit(MODELS, "prompt: ask", "prompt: asked_anew")
    for path in (MODELS, "project/profiles.yml"):
        project.write(path, project.read(path).replace("writer", "author").replace("author-1", "writer-1"))
    project.write(MODELS, project.read(MODELS).replace("questions", "exercises"))
    project.run()
    assert project.sent == 0
    assert project.digests()["blend"] == before


def test_c4_rebuilt_nodes_of_every_kind_with_the_same_content_stop_there(project: Space) -> None:
    project.run()
    edits = [
        ("models/clean.sql", "select topic, text, year from", "select topic, text, year + 0 as year from", "clean"),
        ("models/scoring/measure.py", "max(LEAST,", "max(0, LEAST,", "scored"),
        ("prompts/ask.md", "{{ text }}", "{{ text ~ '' }}", "questions"),
        (MODELS, "    params: {max_tokens: 200}\n", "    params: {max_tokens: 200}\n    where: words > 0\n", "answers"),
        (MODELS, CHOICE, "    on_error: fail\n" + CHOICE, "labelled"),
        (MODELS, "length(question) > 3", "length(question) > 2", "kept"),
    ]
    for path, old, new, node in edits:
        project.edit(path, old, new)
        ended = statuses(project.run())
        assert project.sent == 0
        assert ended.pop(node) == "success", node
        assert set(ended.values()) == {"cached"}, node
