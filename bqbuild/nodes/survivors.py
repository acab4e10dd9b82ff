"""Which rows of a table are still in, which are out, and why; rows are known by their position in the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bqbuild.core.records import ID, Table
from bqbuild.nodes.query import Stream
from bqbuild.store.base import Tables
from bqbuild.store.types import schema_of

POSITION = "_bq_position"

Positions = npt.NDArray[np.int64]

_ALIVE, _SET_ASIDE = -1, -2


class Survivors:
    """The rows of one table under a filter's rules. Held in memory: two bytes a row, and the reasons."""

    def __init__(self, tables: Tables, table: Table) -> None:
        self.table = table
        self.schema = schema_of(table.columns)
        self._tables = tables
        # for each row: still in, set aside, or the number of the rule that dropped it
        self._state = np.full(table.rows, _ALIVE, np.int16)
        self._reasons: list[tuple[Positions, pa.StringArray]] = []

    @property
    def count(self) -> int:
        """How many rows are still in."""
        return int(np.count_nonzero(self._state == _ALIVE))

    @property
    def set_aside_count(self) -> int:
        """How many rows wait for an answer."""
        return int(np.count_nonzero(self._state == _SET_ASIDE))

    def batches(
        self, columns: Sequence[str] | None = None, only: Positions | None = None
    ) -> Iterator[tuple[Positions, pa.RecordBatch]]:
        """The rows still in (of those, `only` these positions), with their positions."""
        chosen = self._state == _ALIVE
        if only is not None:
            wanted = np.zeros(len(chosen), dtype=bool)
            wanted[only] = True
            chosen &= wanted
        for start, batch in self._all(columns):
            inside = np.flatnonzero(chosen[start : start + batch.num_rows])
            if len(inside):
                yield inside + start, batch if len(inside) == batch.num_rows else batch.take(pa.array(inside))

    def stream(self, columns: Sequence[str]) -> Stream:
        """The rows still in as a stream for SQL: their `POSITION`, then the columns."""
        names = list(dict.fromkeys(columns))
        schema = pa.schema([pa.field(POSITION, pa.int64()), *(self.schema.field(name) for name in names)])
        batches = (
            pa.RecordBatch.from_arrays([pa.array(positions), *batch.columns], schema=schema)
            for positions, batch in self.batches(names)
        )
        return Stream(schema, batches)

    def drop(self, rule: int, positions: Positions, reasons: Sequence[str]) -> None:
        """Rows that a rule rejects."""
        if len(positions):
            self._state[positions] = rule
            self._reasons.append((positions, pa.array(reasons, pa.string())))

    def set_aside(self, positions: Positions) -> None:
        """Rows that nobody can decide on yet: neither kept nor rejected."""
        self._state[positions] = _SET_ASIDE

    def kept(self) -> Iterator[pa.RecordBatch]:
        """The rows still in, whole."""
        for _, batch in self.batches():
            yield batch

    def rejected(self) -> Iterator[tuple[npt.NDArray[np.int16], pa.StringArray, pa.RecordBatch]]:
        """The rows that were dropped, whole, with the numbers of the rules and the reasons."""
        order, reasons = self._sorted_reasons()
        for start, batch in self._all(None):
            state = self._state[start : start + batch.num_rows]
            inside = np.flatnonzero(state >= 0)
            if len(inside):
                first = int(np.searchsorted(order, inside[0] + start))
                yield state[inside], reasons.slice(first, len(inside)), batch.take(pa.array(inside))

    def _all(self, columns: Sequence[str] | None) -> Iterator[tuple[int, pa.RecordBatch]]:
        start = 0
        for batch in self._tables.batches(self.table, columns):
            yield start, batch
            start += batch.num_rows

    def _sorted_reasons(self) -> tuple[Positions, pa.StringArray]:
        if not self._reasons:
            return np.empty(0, np.int64), pa.array([], pa.string())
        positions = np.concatenate([positions for positions, _ in self._reasons])
        reasons = pa.concat_arrays([reasons for _, reasons in self._reasons])
        order = np.argsort(positions)
        return positions[order], reasons.take(pa.array(order))


def positions_of(result: pa.Table, column: str = POSITION) -> Positions:
    """A column of positions of a query's result."""
    return np.asarray(result.column(column).to_numpy(), dtype=np.int64)


def ids_at(survivors: Survivors, positions: Positions) -> dict[int, str]:
    """The ids of rows by position."""
    found: dict[int, str] = {}
    for places, batch in survivors.batches([ID], only=np.unique(positions)):
        found.update(zip(places.tolist(), batch.column(0).to_pylist(), strict=True))
    return found
