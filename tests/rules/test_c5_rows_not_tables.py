"""C5: only rows whose call key is new are asked for."""

from __future__ import annotations

import json

import pytest

from tests.space import Space, statuses

NOTES = "project/sources/notes.jsonl"
MODELS = "models/models.yml"


def test_c5_one_new_row_costs_its_own_calls(built: Space) -> None:
    row = {"id": "ca", "topic": "Canada", "text": "Ottawa became the capital in 1857."}
    built.write(NOTES, built.read(NOTES) + json.dumps(row) + "\n")
    results = built.run()
    assert built.sent == 6  # 2 grades × question, answer, label
    assert {name: results[name].counts.new_calls for name in ("questions", "answers", "labelled")} == {
        "questions": 2,
        "answers": 2,
        "labelled": 2,
    }
    assert results["questions"].counts.cached_calls == 8


def test_c5_one_edited_row_costs_its_own_calls(built: Space) -> None:
    built.edit(NOTES, "Tokyo has been", "Tōkyō has been")
    built.run()
    assert built.sent == 6


def test_c5_a_deleted_row_costs_nothing(built: Space) -> None:
    built.write(NOTES, "".join(built.read(NOTES).splitlines(keepends=True)[1:]))
    results = built.run()
    assert built.sent == 0
    assert results["questions"].counts.rows == 6


def test_c5_a_reformatted_source_costs_nothing(built: Space) -> None:
    rows = [json.loads(line) for line in built.read(NOTES).splitlines()]
    built.write(NOTES, "".join(json.dumps(dict(reversed(row.items())), indent=None) + "\n\n" for row in rows))
    assert set(statuses(built.run()).values()) == {"cached"}


def test_c5_another_prompt_asks_its_own_rows_and_what_reads_them(built: Space) -> None:
    built.edit("prompts/label.md", "How difficult", "How hard")
    results = built.run()
    assert built.sent == 8
    assert statuses(results)["answers"] == "cached"


@pytest.mark.parametrize(
    ("old", "new", "calls"),
    [
        ("grade: [primary, undergraduate]", "grade: [primary, undergraduate, graduate]", 4),
        ("params: {temperature: 0.7, max_tokens: 200}", "params: {temperature: 0.7, max_tokens: 300}", 8),
        ("    matrix: {grade", "    samples: 2\n    matrix: {grade", 8),
        (
            "columns: {question: string, answer: string}}",
            "columns: {question: string, answer: string}, explode: true}",
            0,
        ),
    ],
    ids=["a cell more", "another parameter", "a second sample", "another parser"],
)
def test_c5_a_change_asks_for_what_is_new_in_it(built: Space, old: str, new: str, calls: int) -> None:
    built.edit(MODELS, old, new)
    results = built.run("questions")
    assert results["questions"].counts.new_calls == calls
    assert built.sent == calls


def test_c5_identical_requests_are_sent_once(capitals: Space) -> None:
    capitals.edit("prompts/ask.md", "{{ grade }} students on {{ topic }}", "students")
    capitals.edit("prompts/ask.md", "{{ text }}", "")
    results = capitals.run("clean_notes", "questions")
    assert capitals.sent == 1
    assert results["questions"].counts.rows == 8


def test_c5_more_votes_buy_only_the_new_draws(built: Space) -> None:
    built.edit(MODELS, "    kind: annotate\n", "    kind: annotate\n    votes: 3\n")
    built.run()
    assert built.sent == 16
    built.edit(MODELS, "votes: 3", "votes: 5")
    built.run()
    assert built.sent == 16


def test_c5_a_renamed_model_costs_nothing(built: Space) -> None:
    built.write(MODELS, built.read(MODELS).replace("questions", "exam_questions"))
    built.run()
    assert built.sent == 0
