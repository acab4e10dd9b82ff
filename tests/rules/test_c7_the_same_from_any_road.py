"""C7: after any history, the tables are those of a clean build with the same recorded calls."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.llm_server import LlmServer
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


ROWS = [{"id": number, "topic": topic, "n": 1} for number, topic in enumerate(("rain", "snow", "hail", "fog", "wind"))]


@pytest.fixture
def few(tmp_path: Path, llm_server: LlmServer) -> Space:
    """A source `seeds` without key, and models that a test writes."""
    space = Space(tmp_path / "few", llm_server)
    space.write("project/bqbuild.yml", "name: few\nversion: 1\n")
    space.write("project/profiles.yml", "default: dev\ntargets: {dev: {store: .bqbuild}}\n")
    space.write("project/sources/seeds.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    space.write("models/sources.yml", "sources: [{name: seeds, path: sources/seeds.jsonl}]\n")
    return space


def shuffle_seeds(space: Space) -> None:
    """The same seeds in another order: content that is the same."""
    space.write("project/sources/seeds.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS[::-1]))


@pytest.mark.parametrize(
    "query",
    [
        "select topic from {{ source('seeds') }} limit 2",
        "select topic from {{ source('seeds') }} order by n limit 2",
        "select topic, row_number() over () as place from {{ source('seeds') }}",
        "select first(topic) as topic, list(topic) as topics from {{ source('seeds') }}",
        "select distinct on (n) n, topic from {{ source('seeds') }}",
        "select topic from {{ source('seeds') }} limit 2 offset 1",
        "select topic from (select * from {{ source('seeds') }} limit 3)",
        "select topic from {{ source('seeds') }} union all by name (select topic from {{ source('seeds') }} limit 1)",
        "select topic, sum(n) over (rows 1 preceding) as n, lag(topic) over (order by n) as before"
        " from {{ source('seeds') }}",
        "select n, any_value(topic) as topic, arg_max(topic, n) as most, string_agg(topic, '-') as topics"
        " from {{ source('seeds') }} group by n",
        "select mode(topic) as often, max_by(topic, n) as most from {{ source('seeds') }}",
        "select approx_quantile(id, 0.5) as middle from {{ source('seeds') }}",
        "select histogram(topic) as h from {{ source('seeds') }}",
        "select topic from {{ source('seeds') }} where id = (select id from {{ source('seeds') }} limit 1)",
        "select s.topic from {{ source('seeds') }} s, lateral (select id from {{ source('seeds') }} t limit 1) t",
        "with s as materialized (select topic, n from {{ source('seeds') }} order by n) select topic from s limit 1",
        "select topic from {{ source('seeds') }} qualify row_number() over (order by n) <= 2",
    ],
)
def test_c7_sql_does_not_depend_on_the_order_of_rows(few: Space, tmp_path: Path, query: str) -> None:
    few.write("models/made.sql", query + "\n")
    few.run()
    shuffle_seeds(few)
    few.run()
    assert few.digests() == built_anew(few, tmp_path / "clean").digests()


def test_c7_a_python_function_over_tables_does_not_depend_on_the_order_of_rows(few: Space, tmp_path: Path) -> None:
    few.write("models/first.py", "def two(table):\n    return table.slice(0, 2)\n")
    few.write(
        "models/made.yml", "models: [{name: made, kind: python, from: seeds, function: 'first:two', mode: table}]"
    )
    few.run()
    shuffle_seeds(few)
    few.run()
    assert few.digests() == built_anew(few, tmp_path / "clean").digests()


def built_anew(space: Space, root: Path) -> Space:
    """The project as it is now, built in an empty store."""
    shutil.copytree(space.root, root, ignore=shutil.ignore_patterns(".bqbuild"))
    clean = Space(root, space.server)
    clean.run()
    return clean
