"""What a run of a part of the project builds besides, reads as it is, and refuses."""

from __future__ import annotations

import pytest

from bqbuild.core.errors import UsageError
from bqbuild.core.events import Event, Warned
from bqbuild.core.records import NodeName
from bqbuild.run.execute import run
from bqbuild.run.options import RunOptions
from tests.space import Space, statuses


def warnings(space: Space, *names: str) -> list[str]:
    """What a run of these models warns of."""
    heard: list[Event] = []
    with space.session() as session:
        run(session, [NodeName(name) for name in names], RunOptions(), [heard.append])
    return [event.message for event in heard if isinstance(event, Warned)]


def test_missing_parents_that_are_free_are_built(capitals: Space) -> None:
    assert statuses(capitals.run("questions")) == {"clean_notes": "success", "questions": "success"}


def test_a_missing_parent_that_costs_is_an_error_that_says_what_to_do(capitals: Space) -> None:
    with pytest.raises(UsageError, match=r"`answers` reads `questions`") as error:
        capitals.run("answers")
    assert error.value.exit_code == 2
    assert error.value.hint is not None
    assert "+answers" in error.value.hint
    assert "--defer" in error.value.hint
    assert not capitals.server.requests


def test_a_parent_whose_declaration_changed_is_read_as_it_is_with_a_warning(capitals: Space) -> None:
    capitals.run()
    before = capitals.digests()
    capitals.edit("models/staging/clean_notes.sql", "id, topic", "id, upper(topic) as topic")
    assert warnings(capitals, "questions") == [
        "`clean_notes` is read as it was built, though its declaration has changed since; select `clean_notes` too"
    ]
    assert capitals.digests() == before
    assert warnings(capitals, "clean_notes", "questions") == []


def test_a_parent_below_changed_data_is_read_as_it_is_with_a_warning(capitals: Space) -> None:
    capitals.run()
    capitals.write(
        "project/sources/notes.jsonl",
        capitals.read("project/sources/notes.jsonl") + '{"id": "n", "topic": "Tides", "text": "The moon."}\n',
    )
    assert warnings(capitals, "answers") == [
        "`questions` is read as it was built, though `notes` has changed since; select `+questions` too"
    ]
    assert warnings(capitals, "kept") == [
        "`labelled` is read as it was built, though `notes` has changed since; select `+labelled` too"
    ]
