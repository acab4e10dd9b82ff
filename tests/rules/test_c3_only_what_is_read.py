"""C3: a node depends on the columns that it reads, and on nothing else."""

from __future__ import annotations

import json

from tests.space import Space, statuses

NOTES = "project/sources/notes.jsonl"


def _with_column(space: Space, **values: object) -> None:
    rows = [json.loads(line) for line in space.read(NOTES).splitlines()]
    space.write(NOTES, "".join(json.dumps(row | values, ensure_ascii=False) + "\n" for row in rows))


def test_c3_a_new_column_that_nobody_reads_rebuilds_nothing(built: Space) -> None:
    before = built.digests()
    _with_column(built, year=2024)
    results = built.run()
    assert set(statuses(results).values()) == {"cached"}
    assert built.sent == 0
    assert {name: digest for name, digest in built.digests().items() if name != "notes"} == {
        name: digest for name, digest in before.items() if name != "notes"
    }


def test_c3_a_changed_column_that_nobody_reads_rebuilds_nothing(built: Space) -> None:
    _with_column(built, year=2024)
    built.run()
    _with_column(built, year=2025)
    assert set(statuses(built.run()).values()) == {"cached"}


def test_c3_a_column_that_is_only_carried_is_written_again_without_a_call(built: Space) -> None:
    _with_column(built, year=2024)
    built.edit("models/staging/clean_notes.sql", "select id, topic, text", "select id, topic, text, year")
    results = built.run()
    assert built.sent == 0
    assert statuses(results)["questions"] == "success"
    assert results["questions"].counts.cached_calls == 8
    assert {row["year"] for row in built.rows("select year from kept")} == {2024}


def test_c3_columns_swapped_against_each_other_do_count(built: Space) -> None:
    lines = [json.loads(line) for line in built.read(NOTES).splitlines()]
    lines[0]["text"], lines[1]["text"] = lines[1]["text"], lines[0]["text"]
    built.write(NOTES, "".join(json.dumps(line) + "\n" for line in lines))
    results = built.run()
    assert results["questions"].counts.new_calls == 4


def test_c3_ids_alone_never_cause_a_call(capitals: Space) -> None:
    capitals.edit("models/models.yml", "    key: [id]                 # what makes", "    # what makes")
    capitals.run()
    _with_column(capitals, year=2024)
    results = capitals.run()
    assert capitals.sent == 0
    assert statuses(results)["questions"] == "success"


def test_c3_the_order_of_rows_is_not_content(built: Space) -> None:
    lines = built.read(NOTES).splitlines(keepends=True)
    built.write(NOTES, "".join(reversed(lines)))
    assert set(statuses(built.run()).values()) == {"cached"}
