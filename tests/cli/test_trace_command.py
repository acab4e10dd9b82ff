from __future__ import annotations

import pytest

from tests.cli.conftest import Bqbuild
from tests.space import Space


@pytest.fixture
def record(bqbuild: Bqbuild, built: Space) -> str:
    """The id of a row of `kept`."""
    record: str = bqbuild("show", "kept", "--limit", "1", "--json").json()[0]["_bq_id"]
    return record


def test_json_goes_from_the_record_to_its_line(bqbuild: Bqbuild, record: str) -> None:
    document = bqbuild("trace", record, "--json").json()
    assert set(document) == {"record", "steps", "source"}
    assert document["record"]["model"] == "kept"
    assert [step["model"] for step in document["steps"]] == ["kept", "labelled", "answers", "questions", "clean_notes"]
    labelled = document["steps"][1]
    assert {"model", "kind", "row", "prompt", "messages", "response", "llm", "cost"} <= set(labelled)
    assert labelled["prompt"] == "label"
    assert labelled["messages"][0]["role"] == "user"
    assert document["source"]["name"] == "notes"
    assert document["source"]["file"].endswith("notes.jsonl")
    assert document["source"]["line"] == 1
    assert document["source"]["row"]["id"] == "fr"


def test_the_story_shows_prompts_replies_costs_and_the_line(bqbuild: Bqbuild, record: str) -> None:
    done = bqbuild("trace", f"questions:{record}")
    assert done.code == 0
    assert "prompt ask → writer (mock)" in done.out
    assert "Write one question for primary students on France." in done.out
    assert "notes.jsonl:1" in done.out
    assert "$0.0000" in done.out


def test_an_unknown_record_is_a_usage_error(bqbuild: Bqbuild, built: Space) -> None:
    done = bqbuild("trace", "0123")
    assert done.code == 2
    assert "no model has a record `0123`" in done.err
    assert "did you mean 'kept'?" in bqbuild("trace", "keptt:0123").err
