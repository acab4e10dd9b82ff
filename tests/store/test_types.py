"""One stored form for every type, and names that lead back to it."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bqbuild.core.errors import StoreError
from bqbuild.core.records import Column
from bqbuild.store.typenames import ARROW_BY_NAME
from bqbuild.store.types import (
    arrow_type,
    column_type,
    columns_of,
    conformed,
    duckdb_type,
    schema_of,
    stored_schema,
    yaml_type,
)

NESTED = [
    "varchar[]",
    "bigint[][]",
    "struct(a varchar, b bigint[])",
    'struct("two words" varchar, "a ""quote""" double)[]',
    "map(varchar, struct(x double))",
    "decimal(10,2)",
    "decimal(38,0)[]",
]


@pytest.mark.parametrize("name", [*(name for name in ARROW_BY_NAME if name != "json"), *NESTED])
def test_a_type_name_leads_to_a_type_and_back(name: str) -> None:
    assert duckdb_type(column_type(name)) == name


@pytest.mark.parametrize("name", [*(name for name in ARROW_BY_NAME if name != "json"), *NESTED])
def test_duckdb_calls_a_stored_column_by_the_same_name(name: str, tmp_path: pytest.TempPathFactory) -> None:
    path = f"{tmp_path}/t.parquet"
    pq.write_table(schema_of([Column("c", name)]).empty_table(), path)
    seen = str(duckdb.read_parquet(path).types[0])
    assert column_type(seen) == column_type(name)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("string", "varchar"),
        ("Text", "varchar"),
        ("int", "bigint"),
        ("integer", "bigint"),
        ("number", "double"),
        ("float", "double"),
        ("bool", "boolean"),
        ("list<string>", "varchar[]"),
        ("list<integer>", "bigint[]"),
        ("float[]", "double[]"),
        ("json", "json"),
        ("DECIMAL(10, 2)", "decimal(10,2)"),
        ("timestamptz", "timestamp with time zone"),
    ],
)
def test_what_people_write_in_yaml_is_understood(written: str, meant: str) -> None:
    assert yaml_type(written) == meant
    assert arrow_type(written) == column_type(meant)


@pytest.mark.parametrize(
    "name", ["", "strng", "list<", "varchar[", "decimal(40,2)", "struct(a)", "map(varchar)", "int)"]
)
def test_an_unknown_type_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(StoreError, match="unknown type"):
        column_type(name)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (pa.large_string(), "varchar"),
        (pa.dictionary(pa.int8(), pa.string()), "varchar"),
        (pa.large_list(pa.large_string()), "varchar[]"),
        (pa.list_(pa.int32(), 2), "integer[]"),
        (pa.null(), "integer"),
        (pa.timestamp("s"), "timestamp"),
        (pa.timestamp("ms", "Europe/Berlin"), "timestamp with time zone"),
        (pa.binary(16), "blob"),
        (pa.float16(), "float"),
        (pa.struct([("a", pa.large_string())]), "struct(a varchar)"),
    ],
)
def test_spellings_of_a_type_are_stored_as_one(given: pa.DataType, stored: str) -> None:
    assert duckdb_type(given) == stored


@pytest.mark.parametrize("kind", [pa.month_day_nano_interval(), pa.duration("s"), pa.decimal256(60, 2), pa.struct([])])
def test_a_type_that_no_table_can_hold_is_an_error(kind: pa.DataType) -> None:
    with pytest.raises(StoreError, match="cannot hold"):
        duckdb_type(kind)


def test_json_columns_stay_json_and_are_strings() -> None:
    schema = schema_of([Column("a", "json"), Column("b", "varchar")])
    assert schema.field("a").type == pa.string()
    assert columns_of(schema) == (Column("a", "json"), Column("b", "varchar"))
    assert columns_of(pa.schema([("a", pa.json_())])) == (Column("a", "json"),)
    extension = pa.table({"a": pa.array(["{}"]).cast(pa.json_()), "b": ["x"]})
    assert conformed(extension, schema).column("a").to_pylist() == ["{}"]


def test_two_columns_of_one_name_are_an_error() -> None:
    with pytest.raises(StoreError, match="two columns named `a`"):
        stored_schema(pa.schema([("a", pa.int64()), ("a", pa.string())]))


def test_rows_are_taken_by_name_and_cast_where_nothing_is_lost() -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.int64())])
    rows = pa.table({"b": pa.array([1], pa.int32()), "a": pa.array(["x"]).dictionary_encode()})
    assert conformed(rows, schema).to_pylist() == [{"a": "x", "b": 1}]
    with pytest.raises(StoreError, match="`b` does not fit its type bigint"):
        conformed(pa.table({"a": ["x"], "b": [1.5]}), schema)
    with pytest.raises(StoreError, match="the table has"):
        conformed(pa.table({"a": ["x"]}), schema)
