"""What a SQL model may not do, and how the error says so."""

from __future__ import annotations

from dataclasses import replace

import duckdb
import pytest

from bqbuild.config.specs import SqlSpec
from bqbuild.core.errors import ProjectError, Where
from bqbuild.core.records import Node, NodeName
from bqbuild.graph.sql import analyse_sql, body_place
from bqbuild.graph.sql.functions import AGGREGATES, FILE_FUNCTIONS, FORBIDDEN, TABLE_FUNCTIONS, VOLATILE

FILE = Where("models/m.sql")


def refused(sql: str, **settings: object) -> ProjectError:
    with pytest.raises(ProjectError) as caught:
        analyse_sql(sql, FILE, **settings)  # type: ignore[arg-type]  # a few flags
    return caught.value


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "-- nothing but a comment",
        "select 1; select 2",
        "create table x as select 1",
        "insert into t values (1)",
        "update t set a = 1",
        "delete from t",
        "drop table t",
        "copy t to 'x.csv'",
        "attach 'x.db'",
        "pragma version",
        "set threads = 1",
        "install httpfs",
        "load httpfs",
        "call x()",
        "describe t",
        "summarize t",
        "show tables",
        "explain select 1",
        "export database 'x'",
        "vacuum",
        "select from",
        "select * from t where (",
        "select 'open",
        "{{ ref('x') }}",
    ],
)
def test_a_model_is_one_query(sql: str) -> None:
    refused(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "select * from 'x.csv'",
        "select * from 'folder/x.parquet'",
        'select * from "https://example.org/x.parquet"',
        "select * from read_csv('x')",
        "select * from read_csv_auto('x')",
        "select * from read_parquet('x')",
        "select * from parquet_scan('x')",
        "select * from read_json('x')",
        "select * from read_ndjson_objects('x')",
        "select * from read_text('x')",
        "select * from read_blob('x')",
        "select * from glob('*')",
        "select * from sniff_csv('x')",
        "select * from parquet_metadata('x')",
        "select * from read_duckdb('x')",
        "select * from duckdb_settings()",
        "select * from query('select 1')",
        "select * from query_table('t')",
        "select * from pragma_version()",
        "select * from information_schema.tables",
        "select * from main.t",
        "select * from pg_catalog.pg_tables",
        "select * from test_all_types()",
        "select getenv('HOME')",
        "select current_setting('threads')",
        "select nextval('s')",
        "select getvariable('x')",
        "select user from t",
        "select current_database()",
        "select version()",
        "select $1",
        "select ?",
        "select (select getenv('HOME'))",
        "with c as (select * from read_csv('x')) select * from c",
        "select * from t where id in (select id from 'x.csv')",
        "select __bq_id from t",
    ],
)
def test_a_model_reads_its_inputs_and_nothing_else(sql: str) -> None:
    refused(sql)
    refused(sql, volatile=True)


@pytest.mark.parametrize(
    "call",
    [
        "now()",
        "current_timestamp",
        "current_date",
        "CURRENT_TIME",
        "today()",
        "get_current_timestamp()",
        "localtimestamp",
        "transaction_timestamp()",
        "age(timestamp '2020-01-01')",
        "ago('1 day')",
        "random()",
        "uuid()",
        "gen_random_uuid()",
        "uuidv7()",
        "(select random())",
        "list_transform([1], lambda x: random())",
    ],
)
def test_clocks_and_chance_need_volatile(call: str) -> None:
    sql = f"select {call} as x from t"
    assert "volatile: true" in str(refused(sql))
    analyse_sql(sql, FILE, volatile=True)


@pytest.mark.parametrize("sql", ["select * from t tablesample 10%", "select * from t using sample 5 rows"])
def test_samples_need_volatile(sql: str) -> None:
    refused(sql)
    analyse_sql(sql, FILE, volatile=True)


@pytest.mark.parametrize(
    "sql",
    [
        "select age(a, b) from t",
        'select "user" from t',
        "select t.version, now from t",
        "select * from range(3), generate_series(1, 2), unnest([1]), json_each('{}')",
        "select 'now()', 'x.csv' as \"y.csv\" from t",
        "values (1, 2)",
        "pivot t on a using sum(b)",
        "from t",
        "select 1;",
        "select 1; -- done",
    ],
)
def test_what_only_looks_forbidden_is_allowed(sql: str) -> None:
    analyse_sql(sql, FILE)


def test_the_error_says_where_in_the_file() -> None:
    error = refused("select id,\n  now() as made\nfrom t")
    assert str(error.where) == "models/m.sql:2:3"
    error = refused("select *\nfrom t\njoin 'x.csv' u\non true")
    assert str(error.where) == "models/m.sql:3:6"


def test_a_syntax_error_says_where_in_the_file() -> None:
    error = refused("select id\nfrom t\nwhere (id > 1")
    assert error.where is not None
    assert error.where.line == 3
    assert "parse" in error.message


def test_a_table_that_is_no_input_offers_the_nearest() -> None:
    error = refused('select * from "nots"', refs=["notes", "books"])
    assert "`nots` is not an input" in error.message
    assert error.hint == "did you mean 'notes'?"
    assert "ref('model')" in str(refused("select * from zebra", refs=["notes"]))


def test_a_cte_is_no_input() -> None:
    model = analyse_sql(
        'with notes as (select * from "notes"), two as (select * from notes) select * from two, notes',
        FILE,
        refs=["notes"],
    )
    assert model.tables == ("notes",)


def test_a_cte_is_seen_only_after_its_definition_and_inside_its_query() -> None:
    sql = "with a as (select * from b), b as (select 1) select * from (with c as (select 2) select * from c) x, c, a, b"
    assert set(analyse_sql(sql, FILE).tables) == {"b", "c"}


def test_a_very_deep_query_is_an_error_and_no_crash() -> None:
    refused("select " + "(" * 20000 + "1" + ")" * 20000)


def test_the_lists_of_functions_know_the_installed_duckdb() -> None:
    with duckdb.connect() as connection:
        rows = connection.sql(
            "select distinct function_name, function_type, stability from duckdb_functions() where schema_name = 'main'"
        ).fetchall()
    for name, kind, stability in rows:
        if not name.isidentifier():
            continue
        if kind == "aggregate":
            assert name in AGGREGATES, name
        elif kind == "scalar" and stability in ("VOLATILE", "CONSISTENT_WITHIN_QUERY") and name != "error":
            assert name in VOLATILE | FORBIDDEN, name
        elif kind == "table" and name not in TABLE_FUNCTIONS:
            assert name.startswith(FILE_FUNCTIONS) or name not in TABLE_FUNCTIONS


def test_sql_in_yaml_is_placed_by_the_line_of_its_key() -> None:
    spec = SqlSpec(name="m", sql="select 1")
    body = "select id,\n  now() as t\nfrom x\n"
    places = {"sql": Where("models/all.yml", 7, 5)}
    node = Node(NodeName("m"), "sql", spec, (), Where("models/all.yml", 5), "models/all.yml", ("p", "m"), body, places)
    with pytest.raises(ProjectError) as caught:
        analyse_sql(body, body_place(node))
    assert str(caught.value.where) == "models/all.yml:9"
    assert body_place(replace(node, body="select 1", places={})) == Where("models/all.yml", 5)
    assert body_place(replace(node, path="models/m.sql")) == Where("models/m.sql")
