"""Rows on their way through a chain: groups of them, the `where` they pass, and whether all their calls are known."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bqbuild.core.records import CallKey, CallRecord
from bqbuild.nodes.base import Answer, Ask, RowProgram, Task
from bqbuild.nodes.predicates import RowPredicate
from bqbuild.run.desk import Desk


@dataclass(slots=True)
class RowGroup:
    """Some rows, each with the bytes that sort it into its table."""

    rows: list[dict[str, Any]]
    orders: list[bytes]


@dataclass(slots=True)
class RowFilter:
    """A `where` over rows of a known schema."""

    predicate: RowPredicate
    schema: pa.Schema

    def keep(self, group: RowGroup) -> RowGroup:
        """The rows that match."""
        if not group.rows:
            return group
        mask = self.predicate.mask(pa.Table.from_pylist(group.rows, schema=self.schema))
        kept = [number for number, matches in enumerate(mask) if matches]
        return RowGroup([group.rows[number] for number in kept], [group.orders[number] for number in kept])


def is_all_recorded(program: RowProgram, groups: Iterable[RowGroup], desk: Desk, where: RowFilter | None) -> bool:
    """Whether every call that these rows would make is in the log; stops at the first that is not."""
    for group in (where.keep(group) if where else group for group in groups):
        waiting = [(task, _next(task, None)) for tasks in program.tasks(group.rows) for task in tasks]
        while waiting := [(task, asks) for task, asks in waiting if asks]:
            keys = [[desk.key(ask) for ask in asks] for _, asks in waiting]
            found = desk.look_up([key for wave in keys for key in wave])
            if not all(key in found for wave in keys for key in wave):
                for task, _ in waiting:
                    task.steps.close()
                return False
            waiting = [
                (task, _next(task, reply_to(wave, found))) for (task, _), wave in zip(waiting, keys, strict=True)
            ]
    return True


def row_groups(batches: Iterable[pa.RecordBatch], rows: int = 512) -> Iterator[RowGroup]:
    """The rows of a stored table, in order, a bounded number at a time."""
    position = 0
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            part = batch.slice(start, rows)
            orders = [struct.pack(">Q", position + number) for number in range(part.num_rows)]
            position += part.num_rows
            yield RowGroup(part.to_pylist(), orders)


def _next(task: Task, answers: list[Answer] | None) -> Sequence[Ask]:
    try:
        return next(task.steps) if answers is None else task.steps.send(answers)
    except StopIteration:
        return ()


def reply_to(keys: Sequence[CallKey], records: Mapping[CallKey, CallRecord]) -> list[Answer]:
    """The answers to a wave of asks, in its order."""
    return [Answer(key, records[key].reply) for key in keys]
