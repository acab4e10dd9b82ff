"""C4: where a rebuilt node's output is what it was, nothing below it runs."""

from __future__ import annotations

from tests.space import Space, statuses


def test_c4_a_query_that_means_something_else_and_gives_the_same_stops_there(built: Space) -> None:
    built.edit("models/staging/clean_notes.sql", ">= {{", ">= 1 + {{")
    results = built.run()
    assert statuses(results) == {
        "clean_notes": "success",
        "questions": "cached",
        "answers": "cached",
        "labelled": "cached",
        "kept": "cached",
    }
    assert built.sent == 0


def test_c4_a_prompt_refactored_to_the_same_text_stops_at_its_node(built: Space) -> None:
    built.edit("prompts/ask.md", "{{ topic }}", "{{ topic ~ '' }}")
    results = built.run()
    assert statuses(results)["questions"] == "success"
    assert statuses(results)["answers"] == "cached"
    assert built.sent == 0


def test_c4_a_row_that_the_query_drops_reaches_nobody(built: Space) -> None:
    notes = built.read("project/sources/notes.jsonl")
    built.write("project/sources/notes.jsonl", notes + '{"id": "zz", "topic": "Atlantis", "text": "??"}\n')
    results = built.run()
    assert set(statuses(results).values()) - {"success"} == {"cached"}
    assert statuses(results)["questions"] == "cached"
