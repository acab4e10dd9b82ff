"""Two tables compared row by row in DuckDB, in bounded memory: what was added, removed and changed, with samples.

Rows are matched by `_bq_id`. Where no id is on both sides (ids of content, say), rows are compared as a multiset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import duckdb

from bqbuild.core.errors import StoreError
from bqbuild.core.records import ID, Table
from bqbuild.run.warehouse import quoted
from bqbuild.store.base import Store

MEMORY = "1GB"
"""What a comparison may take before it spills to the store's scratch folder."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Samples:
    """Some of the rows that differ: of those that changed, both sides."""

    added: Sequence[Row] = ()
    removed: Sequence[Row] = ()
    changed: Sequence[tuple[Row, Row]] = ()


@dataclass(frozen=True, slots=True)
class RowChanges:
    """How many rows differ, and in how many of those that changed each column does. Rows were matched by id where
    `by_id`, else a changed row is one that was removed and one that was added."""

    added: int
    removed: int
    changed: int = 0
    columns: Mapping[str, int] = field(default_factory=dict)
    by_id: bool = True
    samples: Samples = Samples()

    @property
    def is_empty(self) -> bool:
        """Whether the values are the same."""
        return not (self.added or self.removed or self.changed)


def compare_rows(store: Store, before: Table, after: Table, columns: Sequence[str], *, samples: int = 0) -> RowChanges:
    """What became of the rows in these columns, which both tables have. Raises StoreError."""
    if before.digest == after.digest:
        return RowChanges(0, 0)
    with _connected(store, before, after) as connection:
        try:
            return _by_id(connection, columns, samples) or _by_content(connection, columns, samples)
        except duckdb.Error as error:
            raise StoreError(f"cannot compare two tables: {str(error).splitlines()[0]}") from error


@contextmanager
def _connected(store: Store, before: Table, after: Table) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the two tables as `before` and `after`."""
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"SET memory_limit = '{MEMORY}'; SET preserve_insertion_order = false")
        connection.execute("SET temp_directory = $1", [str(store.scratch / f"comparison-{uuid4().hex}")])
        for name, table in (("before", before), ("after", after)):
            listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in store.tables.files(table))
            connection.execute(f"CREATE VIEW {quoted(name)} AS SELECT * FROM read_parquet([{listed}])")
        yield connection


def _by_id(connection: duckdb.DuckDBPyConnection, columns: Sequence[str], limit: int) -> RowChanges | None:
    """None where the tables have rows, but no id in common."""
    marks = [f"d{number}" for number in range(len(columns))]
    # hashes of the values, not the values, go through the join; they live no longer than this query
    hashed = "".join(f", hash({quoted(name)}) AS {mark}" for name, mark in zip(columns, marks, strict=True))
    joined = f"(SELECT {ID}{hashed} FROM before) AS a FULL JOIN (SELECT {ID}{hashed} FROM after) AS b USING ({ID})"
    both = f"a.{ID} IS NOT NULL AND b.{ID} IS NOT NULL"
    differs = " OR ".join(f"a.{mark} <> b.{mark}" for mark in marks) or "false"
    counts = [
        f"count(*) FILTER (a.{ID} IS NULL)",
        f"count(*) FILTER (b.{ID} IS NULL)",
        f"count(*) FILTER ({both})",
        f"count(*) FILTER ({both} AND ({differs}))",
        *(f"count(*) FILTER ({both} AND a.{mark} <> b.{mark})" for mark in marks),
    ]
    added, removed, common, changed, *each = _one(connection, f"SELECT {', '.join(counts)} FROM {joined}")
    if not common and added and removed:
        return None
    touched = {name: number for name, number in zip(columns, each, strict=True) if number}
    found = Samples()
    if limit:
        ids = f"SELECT {ID} FROM {joined} WHERE"
        found = Samples(
            _rows(connection, "after", columns, f"{ids} a.{ID} IS NULL", limit) if added else (),
            _rows(connection, "before", columns, f"{ids} b.{ID} IS NULL", limit) if removed else (),
            _pairs(connection, columns, f"{ids} {both} AND ({differs})", limit) if changed else (),
        )
    return RowChanges(added, removed, changed, touched, samples=found)


def _by_content(connection: duckdb.DuckDBPyConnection, columns: Sequence[str], limit: int) -> RowChanges:
    value = f"hash({', '.join(map(quoted, columns))})" if columns else "0"
    sides = f"SELECT {value} AS h, 1 AS n FROM after UNION ALL SELECT {value}, -1 FROM before"
    connection.execute(
        f"CREATE TEMP TABLE surplus AS SELECT h, sum(n) AS n FROM ({sides}) GROUP BY h HAVING sum(n) <> 0"
    )
    added, removed = _one(
        connection, "SELECT coalesce(sum(n) FILTER (n > 0), 0), coalesce(-sum(n) FILTER (n < 0), 0) FROM surplus"
    )
    found = Samples()
    if limit:
        # of equal rows, as many as are too many
        more = (
            f"SELECT {ID} FROM (SELECT {ID}, {value} AS h FROM {{}}) JOIN surplus USING (h) WHERE {{}}n > 0 "
            f"QUALIFY row_number() OVER (PARTITION BY h ORDER BY {ID}) <= {{}}n"
        )
        found = Samples(
            _rows(connection, "after", columns, more.format("after", "", ""), limit) if added else (),
            _rows(connection, "before", columns, more.format("before", "-", "-"), limit) if removed else (),
        )
    return RowChanges(int(added), int(removed), by_id=False, samples=found)


def _pairs(
    connection: duckdb.DuckDBPyConnection, columns: Sequence[str], ids: str, limit: int
) -> list[tuple[Row, Row]]:
    old = _rows(connection, "before", columns, ids, limit)
    new = _rows(connection, "after", columns, ids, limit)
    return list(zip(old, new, strict=True))


def _rows(
    connection: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str], ids: str, limit: int
) -> list[dict[str, Any]]:
    """The rows of the first of these ids, by id, so that two looks at one difference show the same."""
    shown = ", ".join(quoted(name) for name in (*columns, ID))
    first = f"SELECT {ID} FROM ({ids}) ORDER BY 1 LIMIT {limit}"
    query = f"SELECT {shown} FROM {quoted(table)} WHERE {ID} IN ({first}) ORDER BY {ID}"
    return connection.sql(query).to_arrow_table().to_pylist()  # type: ignore[no-any-return]  # pyarrow has no types


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    return tuple(
        connection.sql(query).fetchall()[0]
    )  # fetchone would leave the result open, and it owns the connection
