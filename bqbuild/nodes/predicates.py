"""Evaluates SQL predicates over small batches of rows, in DuckDB, with the outside world shut off."""

from __future__ import annotations

from types import TracebackType

import duckdb
import pyarrow as pa

from bqbuild.core.errors import BuildError, Where
from bqbuild.graph.predicates import parse_predicate


class RowPredicate:
    """One predicate, ready for many batches. A row where it is NULL does not match."""

    def __init__(self, text: str, where: Where | None) -> None:
        parse_predicate(text, where)
        self._text = text
        self._where = where
        self._connection = duckdb.connect(":memory:", config={"threads": 1})
        self._connection.execute("SET enable_external_access=false; SET lock_configuration=true")

    def __enter__(self) -> RowPredicate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def mask(self, data: pa.Table | pa.RecordBatch) -> list[bool]:
        """Which rows match, in order. Raises BuildError where the predicate does not fit the data."""
        table = pa.Table.from_batches([data]) if isinstance(data, pa.RecordBatch) else data
        self._connection.register("bq_rows", table)
        try:
            found = self._connection.sql(f"SELECT coalesce(({self._text}\n)::BOOLEAN, false) AS ok FROM bq_rows")
            return [bool(value) for value in found.to_arrow_table().column("ok").to_pylist()]
        except duckdb.Error as error:
            message = str(error).strip().splitlines()[0]
            raise BuildError(f"`{self._text}` failed: {message}", where=self._where) from error
        finally:
            self._connection.unregister("bq_rows")
