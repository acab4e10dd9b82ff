"""Evaluates SQL predicates over small batches of rows, in DuckDB, with the outside world shut off."""

from __future__ import annotations

from types import TracebackType

import duckdb
import pyarrow as pa

from bqbuild.core.errors import BuildError, Where
from bqbuild.graph.predicates import parse_predicate
from bqbuild.nodes.query import SAME_EVERYWHERE, first_line, hint_of, typed


class RowPredicate:
    """One predicate, ready for many batches. A row where it is NULL does not match."""

    def __init__(self, text: str, where: Where | None, *, what: str | None = None) -> None:
        """`what` names the predicate in errors; its own text where it is left out."""
        parse_predicate(text, where)
        self._text = text
        self._what = what or f"`{text}`"
        self._where = where
        self._connection = duckdb.connect(":memory:", config={"threads": 1})
        self._connection.execute(f"{SAME_EVERYWHERE}; SET python_enable_replacements=false")
        self._connection.execute("SET enable_external_access=false; SET lock_configuration=true")

    def __enter__(self) -> RowPredicate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def mask(self, data: pa.Table | pa.RecordBatch) -> list[bool]:
        """Which rows match, in order. Raises BuildError where the predicate does not fit the data."""
        return [value is True for value in self.values(data)]

    def values(self, data: pa.Table | pa.RecordBatch) -> list[bool | None]:
        """What the predicate is for each row, in order; None for NULL. Raises BuildError as `mask` does."""
        table = pa.Table.from_batches([data]) if isinstance(data, pa.RecordBatch) else data
        self._connection.register("bq_rows", table)
        try:
            rows = f"SELECT {typed(table.schema)} FROM bq_rows"
            found = self._connection.sql(f"SELECT ({self._text}\n)::BOOLEAN AS ok FROM ({rows})")
            values: list[bool | None] = found.to_arrow_table().column("ok").to_pylist()
            return values
        except duckdb.Error as error:
            raise BuildError(f"{self._what}: {first_line(error)}", where=self._where, hint=hint_of(error)) from error
        finally:
            self._connection.unregister("bq_rows")
