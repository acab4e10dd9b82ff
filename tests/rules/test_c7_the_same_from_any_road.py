"""C7: after any history, the tables are those of a clean build with the same recorded calls."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.space import Space

MODELS = "models/models.yml"


def clean_build(space: Space, root: Path, *names: str) -> Space:
    """The project as it is now (or these models of it), built from nothing but its call log."""
    shutil.copytree(space.root, root, ignore=shutil.ignore_patterns(".bqbuild"))
    shutil.copytree(space.root / ".bqbuild" / "v1" / "calls", root / ".bqbuild" / "v1" / "calls")
    clean = Space(root, space.server)
    clean.run(*names)
    assert clean.sent == 0
    return clean


def test_c7_a_filter_hands_on_the_calls_of_its_rows_though_their_values_are_the_same(
    built: Space, tmp_path: Path
) -> None:
    built.edit(MODELS, "    kind: annotate\n", "    kind: annotate\n    votes: 3\n    carry: [question]\n")
    built.run()
    built.edit(MODELS, "votes: 3", "votes: 5")
    built.run()
    assert {len(row["_bq_calls"]) for row in built.rows("select * from kept")} == {5}
    assert built.digests() == clean_build(built, tmp_path / "clean").digests()


def test_c7_sql_that_reads_the_calls_of_rows_follows_them(built: Space, tmp_path: Path) -> None:
    built.write("models/asked.sql", "select question, len(_bq_calls) as calls from {{ ref('labelled') }}")
    built.run()
    built.edit(MODELS, "    kind: annotate\n", "    kind: annotate\n    votes: 3\n")
    built.run()
    assert {row["calls"] for row in built.rows("select * from asked")} == {3}
    assert built.digests() == clean_build(built, tmp_path / "clean").digests()


def test_c7_the_order_of_keys_in_yaml_leaves_no_mark_on_the_tables(built: Space, tmp_path: Path) -> None:
    built.edit(MODELS, "{question: string, answer: string}", "{answer: string, question: string}")
    built.edit(MODELS, "matrix: {grade: [primary, undergraduate]}", "matrix: {grade: [primary, undergraduate], b: [1]}")
    built.run()
    built.edit(
        MODELS, "matrix: {grade: [primary, undergraduate], b: [1]}", "matrix: {b: [1], grade: [primary, undergraduate]}"
    )
    results = built.run()
    assert {result.status for result in results.values()} == {"cached"}
    assert built.digests() == clean_build(built, tmp_path / "clean").digests()
    shown = list(built.rows("select * from kept")[0])
    assert shown.index("b") < shown.index("grade") < shown.index("answer") < shown.index("question")
