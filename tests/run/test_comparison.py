"""Two tables compared: by id where there are common ids, else as a multiset; NULL, NaN and types told apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bqbuild.core.records import Table
from bqbuild.run.comparison import compare_rows
from bqbuild.run.rowchanges import described
from bqbuild.store import open_store
from bqbuild.store.base import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(str(tmp_path / "store"))
    yield opened
    opened.close()


def table(store: Store, ids: Sequence[str], **columns: Sequence[Any]) -> Table:
    """A table with these ids and columns."""
    data = pa.table({**{name: pa.array(values) for name, values in columns.items()}, "_bq_id": pa.array(ids)})
    writer = store.tables.writer(data.schema)
    writer.write(data)
    return writer.commit()


def test_rows_are_matched_by_id(store: Store) -> None:
    before = table(store, ["a", "b", "c", "d"], x=[1, 2, 3, 4], y=["p", "q", None, "s"])
    after = table(store, ["e", "d", "c", "b"], x=[5, 4, 3, 9], y=["t", "s", "r", "q"])
    found = compare_rows(store, before, after, ["x", "y"], samples=5)
    assert (found.added, found.removed, found.changed, found.by_id) == (1, 1, 2, True)
    assert found.columns == {"x": 1, "y": 1}
    assert [row["_bq_id"] for row in found.samples.added] == ["e"]
    assert [row["_bq_id"] for row in found.samples.removed] == ["a"]
    assert [(old["x"], new["x"], old["y"], new["y"]) for old, new in found.samples.changed] == [
        (2, 9, "q", "q"),
        (3, 3, None, "r"),
    ]
    assert described(found) == "1 row added, 1 removed, 2 changed in `x`, `y`"


def test_only_the_columns_asked_for_count(store: Store) -> None:
    before, after = table(store, ["a"], x=[1], y=[1]), table(store, ["a"], x=[1], y=[2])
    assert compare_rows(store, before, after, ["x"]).is_empty
    assert compare_rows(store, before, after, []).is_empty
    assert compare_rows(store, before, after, ["y"]).changed == 1


def test_without_common_ids_rows_are_a_multiset(store: Store) -> None:
    before = table(store, ["a", "b", "c"], x=["one", "one", "two"])
    after = table(store, ["d", "e", "f", "g"], x=["one", "two", "three", "three"])
    found = compare_rows(store, before, after, ["x"], samples=2)
    assert (found.added, found.removed, found.changed, found.by_id) == (2, 1, 0, False)
    assert [row["x"] for row in found.samples.added] == ["three", "three"]
    assert [row["x"] for row in found.samples.removed] == ["one"]
    renamed = table(store, ["h", "i", "j"], x=["one", "two", "one"])
    assert described(compare_rows(store, before, renamed, ["x"])) == "the same values, with other row ids or calls"


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ([None], [""], 1),
        ([float("nan")], [float("nan")], 0),
        ([[1, None]], [[1, 2]], 1),
        ([{"a": None}], [{"a": 1}], 1),
        (["\u00e9"], ["e\u0301"], 1),
    ],
    ids=["null and empty", "NaN", "list", "struct", "normal form"],
)
def test_values_are_told_apart_as_content_is(store: Store, old: list[Any], new: list[Any], changed: int) -> None:
    # another column differs, so that the tables are not one and the same
    before, after = table(store, ["a"], x=old, y=[1]), table(store, ["a"], x=new, y=[2])
    assert compare_rows(store, before, after, ["x"]).changed == changed


def test_empty_tables_are_compared(store: Store) -> None:
    empty: Mapping[str, Any] = {"x": pa.array([], pa.int64())}
    before, after = table(store, pa.array([], pa.string()), **empty), table(store, ["a"], x=[1])
    found = compare_rows(store, before, after, ["x"], samples=1)
    assert (found.added, found.removed, found.changed) == (1, 0, 0)
    assert compare_rows(store, after, before, ["x"]).removed == 1


def test_counts_are_in_words(store: Store) -> None:
    before = table(store, ["a", "b"], p=[1, 1], q=[1, 1], r=[1, 1], s=[1, 1], t=[1, 1])
    after = table(store, ["a", "b"], p=[2, 1], q=[2, 1], r=[2, 1], s=[2, 1], t=[2, 1])
    found = compare_rows(store, before, after, ["p", "q", "r", "s", "t"])
    assert described(found) == "1 row changed in `p`, `q`, `r`, `s` and 1 more columns"
