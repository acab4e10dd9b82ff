"""The warehouse: every model of every environment as a view, replaced whole while others read."""

from __future__ import annotations

import os
from typing import Any

import duckdb
import pytest

from bqbuild.run.command import run_models
from bqbuild.run.options import RunOptions
from tests.space import Space

LOUD = "select id, upper(topic) as topic from {{ source('notes') }}"
PROFILES = "project/profiles.yml"


@pytest.fixture
def loud(bare: Space) -> Space:
    """A model over three notes, built."""
    bare.write("models/loud.sql", LOUD)
    run(bare)
    return bare


def run(space: Space) -> None:
    """What the command does."""
    with space.session() as session:
        assert run_models(session, session.models(), RunOptions(), [], command="run")["succeeded"]


def as_environment(space: Space, name: str) -> None:
    """Let the target publish to an environment."""
    lines = [line for line in space.read(PROFILES).splitlines() if "environment:" not in line]
    space.write(PROFILES, "\n".join(lines).replace("store: .bqbuild", f"store: .bqbuild\n    environment: {name}"))


def ask(space: Space, query: str) -> list[Any]:
    """What a reader of the file gets."""
    with duckdb.connect(str(space.root / ".bqbuild" / "dev" / "warehouse.duckdb"), read_only=True) as connection:
        return [row[0] for row in connection.sql(query).fetchall()]


def test_every_environment_is_a_schema_and_the_own_one_needs_none(loud: Space) -> None:
    as_environment(loud, "feature/x")
    loud.write("models/loud.sql", LOUD.replace("upper", "reverse"))
    run(loud)
    assert ask(loud, "select topic from loud order by id") == ["niar", "wons", "liah"]
    assert ask(loud, 'select topic from "feature/x".loud order by id') == ["niar", "wons", "liah"]
    assert ask(loud, "select topic from dev.loud order by id") == ["RAIN", "SNOW", "HAIL"]


@pytest.mark.parametrize(
    ("name", "schema", "own"), [("main", "main_", "dev"), ("warehouse", "warehouse_", "dev"), ("DEV", "DEV", "dev_")]
)
def test_a_name_that_duckdb_takes_for_another_gets_an_underscore(loud: Space, name: str, schema: str, own: str) -> None:
    as_environment(loud, name)
    run(loud)
    as_environment(loud, "dev")
    loud.write("models/loud.sql", LOUD.replace("upper", "reverse"))
    run(loud)
    assert set(ask(loud, "select schema_name from duckdb_views() where not internal")) == {"main", schema, own}
    assert ask(loud, "select topic from loud where id = 1") == ["niar"]
    assert ask(loud, f'select topic from "{own}".loud where id = 1') == ["niar"]
    assert ask(loud, f'select topic from "{schema}".loud where id = 1') == ["RAIN"]


def test_a_run_with_nothing_to_do_writes_it_only_where_it_would_differ(loud: Space) -> None:
    path = loud.root / ".bqbuild" / "dev" / "warehouse.duckdb"
    before = os.stat(path)
    run(loud)
    assert os.stat(path).st_ino == before.st_ino
    loud.write("models/loud.sql", "{{ config(materialized='ephemeral') }}" + LOUD)
    run(loud)
    assert "loud" not in ask(loud, "select view_name from duckdb_views() where not internal")
    loud.write("models/loud.sql", LOUD)
    run(loud)
    assert ask(loud, "select count(*) from loud") == [3]


def test_who_has_it_open_reads_on_while_a_run_replaces_it(loud: Space) -> None:
    with duckdb.connect(str(loud.root / ".bqbuild" / "dev" / "warehouse.duckdb"), read_only=True) as reader:
        loud.write("models/loud.sql", LOUD.replace("upper", "reverse"))
        run(loud)
        assert reader.sql("select topic from loud order by id").fetchall() == [("RAIN",), ("SNOW",), ("HAIL",)]
    assert ask(loud, "select topic from loud order by id") == ["niar", "wons", "liah"]


def test_a_model_renamed_in_its_case_alone_is_the_new_one(loud: Space) -> None:
    (loud.root / "models" / "loud.sql").unlink()
    loud.write("models/Loud.sql", LOUD.replace("upper", "reverse"))
    run(loud)
    assert ask(loud, "select topic from loud where id = 1") == ["niar"]


def test_lineage_columns_come_last(loud: Space) -> None:
    columns = ask(loud, "select column_name from (describe loud)")
    assert columns == ["id", "topic", "_bq_id"]


def views(space: Space) -> list[str]:
    """The SQL of every view of the file."""
    return sorted(ask(space, "select schema_name || ': ' || sql from duckdb_views() where not internal"))


def made_anew(space: Space) -> list[str]:
    """The views of a file that is made with nothing to begin with."""
    for name in ("warehouse.duckdb", ".warehouse"):
        (space.root / ".bqbuild" / "dev" / name).unlink()
    run(space)
    return views(space)


@pytest.mark.parametrize(
    "edits",
    [
        {"models/loud.sql": LOUD.replace("upper", "reverse")},
        {"models/loud.sql": LOUD.replace("id,", "id, 1 as one,")},
        {"models/more.sql": "select id from {{ ref('loud') }}"},
        {"models/loud.sql": "", "models/LOUD.sql": LOUD.replace("upper", "reverse")},
        {"models/loud.sql": "", "models/other.sql": LOUD},
        {"models/loud.sql": "{{ config(materialized='ephemeral') }}" + LOUD, "models/more.sql": "select 1 as one"},
    ],
    ids=["content", "columns", "new", "case", "renamed", "hidden"],
)
def test_a_file_that_is_kept_up_to_date_is_one_made_anew(loud: Space, edits: dict[str, str]) -> None:
    for environment in ("other", "dev"):
        as_environment(loud, environment)
        run(loud)
        for path, text in edits.items():
            loud.write(path, text) if text else (loud.root / path).unlink(missing_ok=True)
    run(loud)
    kept = views(loud)
    assert kept == made_anew(loud)


def test_views_of_an_environment_that_is_gone_go(loud: Space) -> None:
    as_environment(loud, "other")
    run(loud)
    as_environment(loud, "dev")
    (found,) = (loud.root / ".bqbuild").rglob("other.json")
    found.unlink()
    run(loud)
    assert set(ask(loud, "select schema_name from duckdb_views() where not internal")) == {"main", "dev"}


def test_what_a_reader_wrote_into_the_file_is_gone_after_the_next_change(loud: Space) -> None:
    with duckdb.connect(str(loud.root / ".bqbuild" / "dev" / "warehouse.duckdb")) as connection:
        connection.execute("create or replace view loud as select 'mine' as topic, 1 as id; create table mine (a int)")
    loud.write("models/more.sql", "select id from {{ ref('loud') }}")
    run(loud)
    assert ask(loud, "select topic from loud order by id") == ["RAIN", "SNOW", "HAIL"]
    assert ask(loud, "select count(*) from duckdb_tables()") == [0]


def test_what_stands_beside_the_file_may_be_damaged(loud: Space) -> None:
    for text in ("", "[]", "{", '{"made_of": 1}'):
        (loud.root / ".bqbuild" / "dev" / ".warehouse").write_text(text)
        run(loud)
        assert ask(loud, "select topic from loud order by id") == ["RAIN", "SNOW", "HAIL"]
