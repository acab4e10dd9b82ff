"""A stage of a chain by itself: how much it takes in, and what becomes of it where its rows cannot be handed on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import pyarrow as pa

from bqbuild.core.records import ID, NodeName
from bqbuild.nodes.base import Made, RowSteps, Task
from bqbuild.run.desk import Desk
from bqbuild.run.rows import RowGroup, row_groups
from bqbuild.run.stage import MOST_FINISHED, Limits, Stage

SCHEMA = pa.schema([(ID, pa.string())])
ROWS = 4 * MOST_FINISHED


class Copy:
    """A program that asks nothing; counts the rows that it was given."""

    schema = SCHEMA
    sides: Mapping[str, pa.Schema] = {}

    def __init__(self) -> None:
        self.started = 0

    def tasks(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Task]]:
        self.started += len(rows)
        return [[Task(row[ID], "", _steps(row))] for row in rows]

    def settle(self, rows: list[dict[str, Any]]) -> Made:
        return Made(rows)


def _steps(row: Mapping[str, Any]) -> RowSteps:
    yield from ()
    return Made([dict(row)])


class Broken:
    """A sink that takes nothing."""

    def write(self, data: pa.RecordBatch | pa.Table) -> None:
        raise ValueError("no such thing")


class Stuck:
    """A stage below that takes no row until it is let go."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.fed = 0

    async def feed(self, group: RowGroup) -> None:
        await self.free.wait()
        self.fed += len(group.rows)

    async def close(self) -> None:
        """Nothing is held."""


def _groups() -> Iterator[RowGroup]:
    return row_groups([pa.record_batch({ID: pa.array(map(str, range(ROWS)))})])


def _stage(program: Copy, sink: Broken | None) -> Stage:
    return Stage(NodeName("copy"), program, cast(Desk, None), sink, limits=Limits())  # nothing is asked


async def _feed(stage: Stage) -> None:
    for group in _groups():
        await stage.feed(group)
    await stage.close()


def test_rows_that_need_no_call_wait_too_where_those_below_are_busy() -> None:
    async def feed() -> tuple[int, int]:
        program, below = Copy(), Stuck()
        stage = _stage(program, None)
        stage.children.append(cast(Stage, below))
        feeding = asyncio.ensure_future(_feed(stage))
        for _ in range(ROWS):  # many more turns of the loop than there are groups
            await asyncio.sleep(0)
        taken = program.started
        below.free.set()
        await asyncio.wait_for(feeding, 30)
        return taken, below.fed

    taken, fed = asyncio.run(feed())
    assert taken < ROWS
    assert fed == ROWS


def test_whatever_goes_wrong_with_rows_that_are_done_ends_the_node_and_hangs_nobody() -> None:
    async def feed() -> Stage:
        stage = _stage(Copy(), Broken())
        await asyncio.wait_for(_feed(stage), 30)
        return stage

    failure = asyncio.run(feed()).failure
    assert failure is not None
    assert failure.message == "`copy`: ValueError: no such thing"
