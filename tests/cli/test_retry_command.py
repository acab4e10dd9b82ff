"""`bqbuild retry`: the calls behind unusable answers, the missing ones, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Bqbuild
from tests.llm_server import Fault, LlmServer, default_answer
from tests.rules.test_c7_the_same_from_any_road import clean_build
from tests.space import Space

MODELS = "models/models.yml"
NOTES = "project/sources/notes.jsonl"


@pytest.fixture
def spoiled(capitals: Space, bqbuild: Bqbuild) -> Space:
    """The project, built; two questions could not be read, also when they were asked for once more."""
    capitals.edit("project/profiles.yml", "retries: 6", "retries: 0")
    capitals.server.answer = lambda body: "no" if "Brazil" in str(body) else default_answer(body)
    assert bqbuild("run", "-q").code == 0
    capitals.server.clear()
    return capitals


def test_nothing_to_retry_sends_nothing_and_says_so(bqbuild: Bqbuild, built: Space, llm_server: LlmServer) -> None:
    llm_server.clear()
    done = bqbuild("retry")
    assert (done.code, done.out) == (0, "")
    assert "Nothing to retry" in done.err
    assert bqbuild("retry", "--json").json()["results"] == []
    assert llm_server.requests == []


def test_retry_sends_unusable_calls_again_and_builds_what_is_below(
    bqbuild: Bqbuild, spoiled: Space, tmp_path: Any
) -> None:
    assert bqbuild("run", "-q").code == 0
    assert spoiled.server.requests == [], "a run leaves unusable answers as they are"
    spoiled.server.answer = default_answer
    done = bqbuild("retry", "--json")
    assert done.code == 0, done.err
    assert "Asking again: 4 calls with unusable answers." in done.err
    asked = [str(body) for body in spoiled.server.requests]
    assert len([body for body in asked if "Write one" in body]) == 2
    assert len(asked) == 6, "two questions, and what is below them"
    results = {result["name"]: result for result in done.json()["results"]}
    assert {name: result["status"] for name, result in results.items()} == dict.fromkeys(
        ("questions", "answers", "labelled", "kept"), "success"
    )
    assert results["questions"]["rows"] == 8
    assert spoiled.rows("select * from questions__errors") == []
    spoiled.server.clear()
    assert bqbuild("run", "-q").code == 0
    assert spoiled.server.requests == []
    assert clean_build(spoiled, tmp_path / "clean").digests() == spoiled.digests()


def test_retry_of_what_is_unusable_again_is_done_and_asks_again_the_next_time(bqbuild: Bqbuild, spoiled: Space) -> None:
    assert bqbuild("retry", "-q").code == 0
    assert len(spoiled.server.requests) == 4
    assert len(spoiled.rows("select * from questions__errors")) == 2
    assert bqbuild("retry", "-q").code == 0
    assert len(spoiled.server.requests) == 8


def test_retry_sends_the_missing_ones_as_well(bqbuild: Bqbuild, spoiled: Space) -> None:
    spoiled.edit("prompts/label.md", "How difficult", "How hard")
    spoiled.server.fault = lambda body, number: Fault(status=500) if "Japan" in str(body) or number % 3 == 0 else None
    assert bqbuild("run", "-q").code == 1
    missing = len(spoiled.rows("select * from labelled__errors"))
    assert missing
    spoiled.server.clear()
    spoiled.server.fault = lambda body, number: None
    assert bqbuild("retry", "-q", "--select", "labelled").code == 0
    assert len(spoiled.server.requests) == missing


def test_a_retry_that_gets_no_answer_is_partial_and_loses_nothing(bqbuild: Bqbuild, spoiled: Space) -> None:
    before = spoiled.rows("select * from questions__errors")
    spoiled.server.fault = lambda body, number: Fault(status=500)
    done = bqbuild("retry", "--json")
    assert done.code == 1
    results = {result["name"]: result for result in done.json()["results"]}
    assert results["questions"]["status"] == "partial"
    assert spoiled.rows("select * from questions__errors") == before
    assert spoiled.rows("select count(*) as n from questions") == [{"n": 6}]


def test_retry_buys_nothing_for_rows_that_are_new(bqbuild: Bqbuild, spoiled: Space) -> None:
    spoiled.write(NOTES, spoiled.read(NOTES) + '{"id": "ca", "topic": "Canada", "text": "Ottawa since 1857."}\n')
    spoiled.server.answer = default_answer
    assert bqbuild("retry", "-q").code == 0
    assert not [body for body in spoiled.server.requests if "Canada" in str(body)]
    assert spoiled.rows("select count(*) as n from questions") == [{"n": 8}]


def test_retry_refuses_a_model_that_has_changed(bqbuild: Bqbuild, spoiled: Space) -> None:
    spoiled.edit("prompts/ask.md", "Write one", "Write a")
    done = bqbuild("retry")
    assert done.code == 2
    assert "`questions` has changed since its last build" in done.err
    assert spoiled.server.requests == []


def test_retry_leaves_out_what_is_below_and_has_changed(bqbuild: Bqbuild, spoiled: Space) -> None:
    spoiled.edit("prompts/improve.md", "Improve", "Polish")
    spoiled.server.answer = default_answer
    done = bqbuild("retry", "--json")
    assert [result["name"] for result in done.json()["results"]] == ["questions", "labelled", "kept"]
    assert len(spoiled.server.requests) == 2


def test_retry_takes_up_a_model_that_failed_by_its_error_rate(bqbuild: Bqbuild, capitals: Space) -> None:
    rows = [{"id": str(n), "topic": f"Place {n:03}", "text": f"Text {n:03}."} for n in range(60)]
    capitals.write(NOTES, "".join(json.dumps(row) + "\n" for row in rows))
    capitals.edit(MODELS, "[primary, undergraduate]", "[primary]")
    capitals.server.answer = lambda body: "no" if "Place 00" in str(body) else default_answer(body)
    assert bqbuild("run", "-q", "--select", "+questions").code == 1
    capitals.server.clear()
    capitals.server.answer = default_answer
    done = bqbuild("retry", "--json")
    assert done.code == 0, done.err
    assert capitals.rows("select count(*) as n from questions") == [{"n": 60}]
    assert 10 <= len(capitals.server.requests) <= 20


JUDGED = """
  - name: judged
    kind: filter
    from: clean_notes
    rules:{first}
      - name: good
        judge:
          {{prompt: good, llm: writer, accept: "verdict = 'yes'",
           output: {{format: choice, columns: {{verdict: {{values: [yes, no]}}}}}}}}
"""
DEDUP = "\n      - {name: once, dedup: {columns: [topic]}}"


@pytest.mark.parametrize("first", ["", DEDUP], ids=["streams", "waits"])
def test_retry_takes_up_a_filter_that_failed_by_its_error_rate(bqbuild: Bqbuild, capitals: Space, first: str) -> None:
    rows = [{"id": str(n), "topic": f"Place {n:03}", "text": f"Text {n:03}."} for n in range(60)]
    capitals.write(NOTES, "".join(json.dumps(row) + "\n" for row in rows))
    capitals.write(MODELS, capitals.read(MODELS).rstrip() + JUDGED.format(first=first))
    capitals.write("prompts/good.md", "Is it good, yes or no? {{ topic }}\n")
    capitals.server.answer = lambda body: "perhaps" if "Place 00" in str(body) else "yes"
    assert bqbuild("run", "-q", "--select", "+judged").code == 1
    capitals.server.clear()
    capitals.server.answer = lambda body: "yes"
    done = bqbuild("retry", "--json")
    assert done.code == 0, done.err
    assert capitals.rows("select count(*) as n from judged") == [{"n": 60}]
    assert 10 <= len(capitals.server.requests) <= 20


def test_a_ballot_that_could_not_be_read_is_asked_for_again(bqbuild: Bqbuild, built: Space) -> None:
    built.edit(MODELS, "    kind: annotate\n", "    kind: annotate\n    votes: 2\n")
    spoiled = [True]
    built.server.answer = lambda body: (
        "who knows" if "cannot be used" in str(body) or (spoiled and spoiled.pop()) else default_answer(body)
    )
    assert bqbuild("run", "-q").code == 0
    assert len(built.rows("select * from labelled__errors")) == 1
    built.server.clear()
    built.server.answer = default_answer
    assert bqbuild("retry", "-q").code == 0
    assert len(built.server.requests) == 1
    assert built.rows("select * from labelled__errors") == []
