"""The digest of content: blind to form, sharp on content."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import math
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bqbuild.core.records import Column
from bqbuild.store.digests import ContentDigest, row_lanes, table_digest
from bqbuild.store.types import columns_of, conformed, stored_schema

INTS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
MOMENTS = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))
DECIMALS = st.integers(-(10**20), 10**20).map(lambda number: decimal.Decimal(number).scaleb(-4))

SCALARS: list[tuple[pa.DataType, st.SearchStrategy[object]]] = [
    (pa.int64(), INTS),
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.bool_(), st.booleans()),
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.string(), TEXT),
    (pa.binary(), st.binary(max_size=12)),
    (pa.decimal128(30, 4), DECIMALS),
    (pa.date32(), st.dates()),
    (pa.timestamp("us"), MOMENTS),
    (pa.time64("us"), st.times()),
]


@st.composite
def column_types(draw: st.DrawFn, depth: int = 2) -> tuple[pa.DataType, st.SearchStrategy[object]]:
    kind = draw(st.sampled_from(["scalar", "scalar", "list", "struct", "map"] if depth else ["scalar"]))
    if kind == "scalar":
        data_type, values = draw(st.sampled_from(SCALARS))
        return data_type, st.none() | values
    inner, values = draw(column_types(depth - 1))
    if kind == "list":
        return pa.list_(inner), st.none() | st.lists(values, max_size=3)
    if kind == "map":
        entry = st.tuples(st.integers(0, 3).map(str), values)
        return pa.map_(pa.string(), inner), st.none() | st.lists(entry, max_size=3, unique_by=lambda pair: pair[0])
    other, other_values = draw(column_types(depth - 1))
    fields = pa.struct([("a", inner), ("b", other)])
    return fields, st.none() | st.fixed_dictionaries({"a": values, "b": other_values})


@st.composite
def tables(draw: st.DrawFn, max_rows: int = 6) -> pa.Table:
    columns = draw(st.lists(column_types(), min_size=1, max_size=3))
    count = draw(st.integers(0, max_rows))
    arrays = [pa.array(draw(st.lists(values, min_size=count, max_size=count)), kind) for kind, values in columns]
    return pa.table(arrays, names=[f"c{number}" for number in range(len(arrays))])


def one(values: list[object], data_type: pa.DataType | None = None) -> str:
    return table_digest(pa.table({"c": pa.array(values, data_type)}))


@given(tables(), st.randoms(use_true_random=False))
def test_order_and_chunks_and_slices_leave_no_mark(table: pa.Table, rng: random.Random) -> None:
    order = list(range(table.num_rows))
    rng.shuffle(order)
    pieces = [table.take([index]) for index in order]
    shuffled = pa.concat_tables(pieces) if pieces else table
    padded = pa.concat_tables([table.slice(0, 1), shuffled, shuffled.slice(0, 1)]).combine_chunks()
    sliced = padded.slice(min(1, table.num_rows), table.num_rows)
    assert table_digest(shuffled) == table_digest(table)
    assert table_digest(sliced) == table_digest(table)


@given(tables())
def test_a_digest_survives_parquet(table: pa.Table) -> None:
    stored = conformed(table, stored_schema(table.schema))
    sink = pa.BufferOutputStream()
    pq.write_table(stored, sink)
    read = conformed(pq.read_table(pa.BufferReader(sink.getvalue())), stored.schema)
    assert table_digest(read) == table_digest(table)


@given(tables(max_rows=4), st.data())
def test_every_single_change_of_a_value_changes_the_digest(table: pa.Table, data: st.DataObject) -> None:
    assume(table.num_rows)
    column = data.draw(st.integers(0, table.num_columns - 1))
    row = data.draw(st.integers(0, table.num_rows - 1))
    name, kind = table.schema.names[column], table.schema.field(column).type
    values = table.column(column).to_pylist()
    other = data.draw(st.sampled_from([None, *values, *_samples(kind)]))
    changed = [*values[:row], other, *values[row + 1 :]]
    after = table.set_column(column, name, pa.array(changed, kind))
    same = sorted(map(_exact, table.to_pylist())) == sorted(map(_exact, after.to_pylist()))
    assert (table_digest(after) == table_digest(table)) == same


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2)), max_size=7), st.data())
def test_equal_digests_mean_equal_multisets_of_tuples(rows: list[tuple[str, int]], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2)), max_size=7) | st.permutations(rows))
    schema = pa.schema([("s", pa.string()), ("n", pa.int64())])
    first, second = (
        table_digest(pa.Table.from_pylist([{"s": s, "n": n} for s, n in chosen], schema=schema))
        for chosen in (rows, other)
    )
    assert (first == second) == (sorted(rows) == sorted(other))


def test_values_that_look_alike_have_digests_of_their_own() -> None:
    digests = [
        one([None], pa.string()),
        one([""]),
        one(["0"]),
        one(["null"]),
        one([0]),
        one([0], pa.int32()),
        one([1]),
        one([1], pa.uint64()),
        one([0.0]),
        one([-0.0]),
        one([1.0]),
        one([1.0], pa.float32()),
        one([math.nan]),
        one([math.inf]),
        one([False]),
        one([None], pa.bool_()),
        one([None], pa.int64()),
        one([b""]),
        one(["1"]),
        one([True]),
        one([decimal.Decimal("1.0")], pa.decimal128(10, 1)),
        one([decimal.Decimal("1.0")], pa.decimal128(11, 1)),
        one([dt.date(1970, 1, 2)]),
        one([dt.datetime(1970, 1, 1)], pa.timestamp("us")),
        one([dt.datetime(1970, 1, 1)], pa.timestamp("us", "UTC")),
        one([dt.datetime(1970, 1, 1)], pa.timestamp("ns")),
    ]
    assert len(set(digests)) == len(digests)


def test_nested_values_that_look_alike_have_digests_of_their_own() -> None:
    lists = pa.list_(pa.list_(pa.string()))
    structs = pa.list_(pa.struct([("a", pa.string()), ("b", pa.string())]))
    digests = [
        *(
            one([value], lists)
            for value in (None, [], [None], [[]], [[None]], [[""]], [[], []], [["a", "b"]], [["b", "a"]])
        ),
        *(
            one([value], lists)
            for value in ([["ab"]], [["a"], ["b"]], [["a", "b"], []], [[], ["a", "b"]], [["a", None]])
        ),
        *(
            one([value], structs)
            for value in (
                None,
                [],
                [None],
                [{"a": None, "b": None}],
                [{"a": "x", "b": None}],
                [{"a": None, "b": "x"}],
                [{"a": "x", "b": "y"}],
                [{"a": "y", "b": "x"}],
                [{"a": "x", "b": "y"}, None],
            )
        ),
    ]
    assert len(set(digests)) == len(digests)


def test_columns_that_trade_values_do_not_pass_for_equal() -> None:
    table = pa.table({"a": ["x", "y"], "b": ["1", "2"]})
    crossed = pa.table({"a": ["x", "y"], "b": ["2", "1"]})
    swapped = pa.table({"a": ["1", "2"], "b": ["x", "y"]})
    shifted = pa.table({"a": ["x1", "y"], "b": ["", "2"]})
    assert len({table_digest(each) for each in (table, crossed, swapped, shifted)}) == 4


def test_names_and_types_and_places_of_columns_count() -> None:
    table = pa.table({"a": [1], "b": [1]})
    others = [
        table.rename_columns(["a", "c"]),
        table.rename_columns(["b", "a"]),
        pa.table({"a": [1]}),
        pa.table({"a": [1], "b": pa.array([1], pa.int32())}),
        pa.table({"ab": [1]}),
    ]
    assert len({table_digest(each) for each in (table, *others)}) == 6


def test_multiplicity_counts() -> None:
    digests = [one(["a"] * count) for count in (0, 1, 2, 3, 4, 64, 65, 128)]
    assert len(set(digests)) == len(digests)
    assert one(["a", "a", "b"]) != one(["a", "b", "b"])


def test_other_forms_of_one_column_have_one_digest() -> None:
    plain = pa.array(["a", None, "b", "a"])
    forms = [
        plain,
        plain.cast(pa.large_string()),
        plain.cast(pa.string_view()),
        plain.dictionary_encode(),
        pa.chunked_array([plain.slice(0, 1), plain.slice(1).dictionary_encode().cast(pa.string())]),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 0]), pa.array(["a", None, "b"])),
    ]
    assert len({table_digest(pa.table({"c": form})) for form in forms}) == 1
    moment = pa.array([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], pa.timestamp("us", "UTC"))
    forms = [moment, moment.cast(pa.timestamp("s", "Europe/Berlin")), moment.cast(pa.timestamp("ms", "Asia/Tokyo"))]
    assert len({table_digest(pa.table({"c": form})) for form in forms}) == 1
    items = pa.array([["a"], [], None])
    forms = [items, items.cast(pa.large_list(pa.large_string())), items.cast(pa.list_(pa.field("x", pa.string())))]
    assert len({table_digest(pa.table({"c": form})) for form in forms}) == 1


def test_what_lies_under_a_null_leaves_no_mark() -> None:
    clean = pa.array([1, None, 3])
    dirty = pa.Array.from_buffers(pa.int64(), 3, [clean.buffers()[0], pa.array([1, 99, 3]).buffers()[1]])
    assert dirty.to_pylist() == clean.to_pylist()
    assert table_digest(pa.table({"c": dirty})) == table_digest(pa.table({"c": clean}))
    hidden = pa.StructArray.from_arrays([pa.array(["x", "y"])], names=["a"], mask=pa.array([False, True]))
    shown = pa.array([{"a": "x"}, None], hidden.type)
    assert table_digest(pa.table({"c": hidden})) == table_digest(pa.table({"c": shown}))
    holes = pa.ListArray.from_arrays(pa.array([0, 1, 3]), pa.array(["x", "y", "z"]), mask=pa.array([False, True]))
    assert table_digest(pa.table({"c": holes})) == table_digest(pa.table({"c": pa.array([["x"], None])}))


def test_the_payload_of_a_nan_leaves_no_mark() -> None:
    bits = pa.array([0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000001], pa.uint64())
    odd = pa.Array.from_buffers(pa.float64(), 3, [None, bits.buffers()[1]])
    assert table_digest(pa.table({"c": odd})) == one([math.nan] * 3)


def test_a_digest_taken_piece_by_piece_is_that_of_the_whole() -> None:
    table = pa.table({"n": range(1000), "s": [str(number % 7) for number in range(1000)]})
    content = ContentDigest(columns_of(table.schema))
    for start in range(0, 1000, 77):
        content.update(table.slice(start, 77))
    assert content.value() == table_digest(table)


def test_blocks_do_not_matter_for_large_batches() -> None:
    table = pa.table({"n": range(200_000)})
    halves = pa.concat_tables([table.slice(70_001), table.slice(0, 70_001)])
    assert table_digest(halves) == table_digest(table)


def test_no_rows_of_other_columns_are_other_content() -> None:
    empty = [ContentDigest(columns).value() for columns in ((), (Column("a", "bigint"),), (Column("a", "varchar"),))]
    assert len(set(empty)) == 3


def test_the_digests_of_this_release_are_those_of_the_first() -> None:
    """A change here sends every store back to its calls: bump SCHEME, and only on purpose."""
    table = pa.table(
        {
            "id": ["a", "b", None],
            "n": [1, -1, None],
            "x": [0.5, math.nan, -0.0],
            "ok": [True, None, False],
            "tags": [["p", None], [], None],
            "place": pa.array([{"file": "f", "line": 1}, None, {"file": None, "line": 2}]),
            "price": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("-2.25")], pa.decimal128(10, 2)),
            "at": pa.array([dt.datetime(2020, 1, 1), None, dt.datetime(1969, 1, 1)], pa.timestamp("us")),
            "m": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        }
    )
    assert table_digest(table) == "26df8064dcd9949bd75639c6687abea3"


def test_lanes_spread_small_numbers_over_all_bits() -> None:
    lanes = row_lanes(pa.table({"n": pa.array(range(4096), pa.int64())}))
    for lane in lanes:
        assert len(set(lane.tolist())) == 4096
        assert len({value >> 52 for value in lane.tolist()}) > 2000
        assert len({value & 0xFFF for value in lane.tolist()}) > 2000
    assert not set(lanes[0].tolist()) & set(lanes[1].tolist())


def test_many_small_tables_collide_nowhere() -> None:
    seen = set()
    for values in itertools.product([None, 0, 1, 2], repeat=4):
        table = pa.table({"a": pa.array(values[:2], pa.int64()), "b": pa.array(values[2:], pa.int64())})
        rows = tuple(sorted(map(str, zip(values[:2], values[2:], strict=True))))
        seen.add((rows, table_digest(table)))
    assert len({rows for rows, _ in seen}) == len({digest for _, digest in seen}) == len(seen)


@pytest.mark.parametrize("data_type", [pa.int64(), pa.bool_(), pa.string(), pa.list_(pa.int64()), pa.decimal128(5, 1)])
def test_arrays_of_nothing_but_null_and_empty_arrays_have_digests(data_type: pa.DataType) -> None:
    nulls = pa.nulls(3, data_type)
    assert one([None] * 3, data_type) == table_digest(pa.table({"c": nulls}))
    assert table_digest(pa.table({"c": nulls.slice(1, 0)})) == one([], data_type)


@settings(max_examples=20)
@given(st.lists(st.lists(TEXT, max_size=5), max_size=20))
def test_slices_of_lists_are_lists(values: list[list[str]]) -> None:
    whole = pa.array(values, pa.list_(pa.string()))
    for start in range(len(values)):
        piece = pa.table({"c": whole.slice(start, 3)})
        assert table_digest(piece) == one(list(values[start : start + 3]), whole.type)


def _samples(kind: pa.DataType) -> list[object]:
    if pa.types.is_floating(kind):
        return [0.0, -0.0, math.nan, 1.0]
    if pa.types.is_integer(kind):
        return [0, 1]
    if pa.types.is_string(kind):
        return ["", "a"]
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        return [[]]
    return []


def _exact(value: object) -> str:
    """A text that tells apart what the digest tells apart: a NaN is a NaN, a map's entries have an order."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value.hex()
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_exact(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_exact, value)) + "]"
    return repr(value)
