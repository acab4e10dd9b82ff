"""The row engine: rows flow through chains of row kinds, each row as far and as fast as its own calls allow.

feed(rows) ─ where ─ tasks ─ look up keys in bulk ─┬─ all found: finished at once
                                                   └─ misses: sent; each task goes on alone ─ finished
finished ─ settle ─ writer (and errors) ─ feed of every child stage

A stage holds a bounded number of open tasks, and a task stays open until its rows are handed on; of rows that need no
call, a bounded number waits to be handed on: that is the back-pressure. A failing row is caught here and recorded; it
never stops its siblings.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import pyarrow as pa

from bqbuild.config.specs import BudgetSpec, ConnectionSpec
from bqbuild.core.errors import BqError, BuildError, ProviderError
from bqbuild.core.records import CALLS, PARENT, CallKey, CallRecord, Node, NodeName, RowError
from bqbuild.nodes.base import Answer, Ask, Made, RowProgram, Task
from bqbuild.run.desk import BudgetSpent, Desk, Tally
from bqbuild.run.rows import RowFilter, RowGroup, reply_to
from bqbuild.store.base import ORDER

LINGER_SECONDS = 0.01
"""How long rows wait for others before they are handed on together, while calls are out."""

MOST_FINISHED = 2048
"""Tasks that may wait to be handed on before more rows are taken in."""

RATE_TESTED_FROM = 50
"""Rows after which `max_error_rate` is looked at."""


class Sink(Protocol):
    """Where a stage's rows go: a table writer, or a list for a judge."""

    def write(self, data: pa.RecordBatch | pa.Table) -> None:
        """Take rows of the stage's schema, with `ORDER` in front."""


@dataclass(slots=True)
class Limits:
    """What a stage keeps to."""

    max_error_rate: float = 1.0
    budget: BudgetSpec | None = None
    fails_on_error: bool = False
    open_tasks: int = 256


def open_tasks(llm: ConnectionSpec) -> int:
    """How many tasks of a stage may wait for this LLM: enough to keep it full, or to fill a batch."""
    return llm.batch.max_requests if llm.mode == "batch" else max(64, 4 * llm.max_concurrency)


@dataclass(slots=True)
class _Open:
    """A task between two waves of calls."""

    task: Task
    order: bytes
    asks: Sequence[Ask] = ()
    keys: list[CallKey] = field(default_factory=list)
    used: list[CallKey] = field(default_factory=list)
    has_slot: bool = False


class Stage:
    """One program of a chain at work. `sink` is None where the node has another program to follow."""

    def __init__(
        self,
        name: NodeName,
        program: RowProgram,
        desk: Desk,
        sink: Sink | None,
        *,
        limits: Limits,
        where: RowFilter | None = None,
        sides: Mapping[str, Sink] = MappingProxyType({}),
        on_progress: Callable[[Stage], None] = lambda stage: None,
    ) -> None:
        self.name = name
        self.program = program
        self.tally = Tally()
        self.errors: list[RowError] = []
        self.missing = 0
        self.seen = 0
        self.failure: BqError | None = None
        self.children: list[Stage] = []
        self._schema = program.schema.insert(0, pa.field(ORDER, pa.binary()))
        self._desk, self._sink, self._limits, self._where = desk, sink, limits, where
        self._sides = {
            name: (sides[name], schema.insert(0, pa.field(ORDER, pa.binary())))
            for name, schema in program.sides.items()
        }
        self._on_progress = on_progress
        self._slots = asyncio.Semaphore(limits.open_tasks)
        self._finished: asyncio.Queue[tuple[_Open, Made] | None] = asyncio.Queue()
        self._has_room = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._unusable = 0
        self._handing_on: asyncio.Task[None] | None = None

    async def feed(self, group: RowGroup) -> None:
        """Take rows in; returns when there is room for more."""
        if self._handing_on is None:
            self._handing_on = asyncio.ensure_future(self._hand_on())
        if self._has_failed():
            return
        try:
            waiting = self._answer_from_log(self._start(self._where.keep(group) if self._where else group))
        except BqError as error:
            self._fail(error)
            return
        for opened in waiting:
            await self._slots.acquire()
            opened.has_slot = True
            if self._has_failed():
                self._release(opened)
                return
            running = asyncio.ensure_future(self._go_on(opened))
            self._running.add(running)
            running.add_done_callback(self._running.discard)
        # let replies that came meanwhile be handed on before more is read
        await asyncio.sleep(0)
        while self._finished.qsize() > MOST_FINISHED:
            self._has_room.clear()
            await self._has_room.wait()

    async def close(self) -> None:
        """Wait until every row that was fed is handed on, then close the children."""
        while self._running:
            await asyncio.gather(*list(self._running))
        if self._handing_on is not None:
            self._finished.put_nowait(None)
            await self._handing_on
            self._handing_on = None
        for child in self.children:
            await child.close()

    def has_lost_all(self) -> bool:
        """Whether not one row that asked has an answer."""
        return 0 < self.missing == self.seen

    def _start(self, group: RowGroup) -> list[_Open]:
        waiting: list[_Open] = []
        for order, tasks in zip(group.orders, self.program.tasks(group.rows), strict=True):
            for number, task in enumerate(tasks):
                opened = _Open(task, order + struct.pack(">I", number))
                if self._advance(opened, None):
                    waiting.append(opened)
        return waiting

    def _advance(self, opened: _Open, records: Mapping[CallKey, CallRecord] | None) -> bool:
        """Run a task to its next asks; False when it has finished and is on its way out."""
        answers: list[Answer] | None = None
        if records is not None:
            answers = reply_to(opened.keys, records)
            opened.used += opened.keys
            self.tally.kept += self._desk.count_kept(records[key] for key in opened.keys)
        try:
            opened.asks = next(opened.task.steps) if answers is None else opened.task.steps.send(answers)
        except StopIteration as stop:
            self._finished.put_nowait((opened, stop.value))
            return False
        opened.keys = [self._desk.key(ask) for ask in opened.asks]
        self.tally.keys += bytes.fromhex("".join(opened.keys))
        return True

    def _answer_from_log(self, waiting: list[_Open]) -> list[_Open]:
        """Answer every task whose calls are all recorded, wave by wave; what is left has a miss."""
        left: list[_Open] = []
        while waiting:
            found = self._desk.look_up([key for opened in waiting for key in opened.keys])
            again: list[_Open] = []
            for opened in waiting:
                if not all(key in found for key in opened.keys):
                    left.append(opened)
                    continue
                self.tally.cached += len(opened.keys)
                if self._advance(opened, found):
                    again.append(opened)
            waiting = again
        return left

    async def _go_on(self, opened: _Open) -> None:
        """Take one task to its end, sending what the log does not have. Nothing of a row's leaves here raised."""
        try:
            is_going = True
            while is_going:
                records = await self._ask(opened)
                is_going = self._advance(opened, records)
        except (ProviderError, BudgetSpent) as error:
            self._lose(opened, error)
        except BqError as error:
            self._fail(error)
            self._release(opened)
        except Exception as error:  # noqa: BLE001  # the quarantine: a row that breaks our own code must not hang its chain
            self._fail(BuildError(f"`{self.name}`: row {opened.task.row_id}: {type(error).__name__}: {error}"))
            self._release(opened)

    async def _ask(self, opened: _Open) -> dict[CallKey, CallRecord]:
        records = self._desk.look_up(opened.keys)
        self.tally.cached += sum(key in records for key in opened.keys)
        sent: list[tuple[CallKey, asyncio.Task[CallRecord]]] = []
        problem: BaseException | None = None
        for ask, key in zip(opened.asks, opened.keys, strict=True):
            if key not in records:
                try:
                    sent.append((key, self._desk.send(ask, key, self.tally, self._limits.budget)))
                except BudgetSpent as error:
                    problem = error
        # every call that was sent is awaited, whatever becomes of the others: its answer is paid for
        replies = await asyncio.gather(*(task for _, task in sent), return_exceptions=True)
        for (key, _), reply in zip(sent, replies, strict=True):
            if isinstance(reply, BaseException):
                problem = reply
            else:
                records[key] = reply
        if problem is not None:
            raise problem
        return records

    def _lose(self, opened: _Open, error: BqError) -> None:
        """No answer: the row is missing until the next run."""
        opened.task.steps.close()
        self.missing += 1
        reason = error.kind if isinstance(error, ProviderError) else "budget"
        message = f"{error.message} ({error.hint})" if error.hint else error.message
        lost = RowError(opened.task.row_id, opened.task.cell, reason, message, False, calls=tuple(opened.keys))
        self._finished.put_nowait((opened, Made(errors=[lost])))

    def _has_failed(self) -> bool:
        return self.failure is not None

    def _fail(self, error: BqError) -> None:
        if self.failure is None:
            self.failure = error

    def _release(self, opened: _Open) -> None:
        if opened.has_slot:
            opened.has_slot = False
            self._slots.release()

    async def _hand_on(self) -> None:
        """Take what finished, as much as there is at a time, to the sink and the children."""
        is_open = True
        while is_open:
            batch = [await self._finished.get()]
            if self._running:
                # what finishes meanwhile goes on with it: a batch of a few rows costs hardly more than one of one
                await asyncio.sleep(LINGER_SECONDS)
            while not self._finished.empty():
                batch.append(self._finished.get_nowait())
            self._has_room.set()
            is_open = batch[-1] is not None
            done = [item for item in batch if item is not None]
            try:
                if done and self.failure is None:
                    await self._emit(done)
            except BqError as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001  # the quarantine: who feeds this stage would wait for ever
                self._fail(BuildError(f"`{self.name}`: {type(error).__name__}: {error}"))
            finally:
                for opened, _ in done:
                    self._release(opened)

    async def _emit(self, done: Sequence[tuple[_Open, Made]]) -> None:
        rows: list[dict[str, Any]] = []
        sides: dict[str, list[dict[str, Any]]] = {}
        for opened, made in done:
            rows += _placed(made.rows, opened.order)
            for name, side in made.sides.items():
                sides.setdefault(name, []).extend(_placed(side, opened.order))
            self.tally.is_told &= _tells(made, opened.used)
            self._record(made)
        settled = self.program.settle(rows)
        for name, part in (*sides.items(), *settled.sides.items()):
            self._write_side(name, part)
        batch, rows = self._batch(settled.rows)
        if rows and self._sink is not None:
            self._sink.write(batch)
            self.tally.rows += len(rows)
        self._on_progress(self)
        if self.children and rows:
            group = RowGroup(rows, [row[ORDER] for row in rows])
            for child in self.children:
                await child.feed(group)

    def _write_side(self, name: str, rows: list[dict[str, Any]]) -> None:
        sink, schema = self._sides[name]
        sink.write(pa.RecordBatch.from_pylist(rows, schema=schema))

    def _batch(self, rows: list[dict[str, Any]]) -> tuple[pa.RecordBatch, list[dict[str, Any]]]:
        """The rows as Arrow, without those whose values do not fit the schema: these are recorded."""
        try:
            return pa.RecordBatch.from_pylist(rows, schema=self._schema), rows
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            fitting = [row for row in rows if self._fits(row)]
            return pa.RecordBatch.from_pylist(fitting, schema=self._schema), fitting

    def _fits(self, row: dict[str, Any]) -> bool:
        try:
            pa.RecordBatch.from_pylist([row], schema=self._schema)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            failed = RowError(row[PARENT], "", "type", str(error), True, calls=tuple(row[CALLS] or ()))
            self._record(Made(errors=[failed]))
            return False
        return True

    def _record(self, made: Made) -> None:
        self.errors += [*made.errors, *made.notes]
        self.seen += not made.sides or bool(made.errors)  # a row that a rule rejects was never asked about
        spoiled = [error for error in made.errors if error.answered]
        self._unusable += bool(spoiled)
        if spoiled and self._limits.fails_on_error:
            self._fail(
                BuildError(f"`{self.name}`: row {spoiled[0].row_id}: {spoiled[0].message} (it has `on_error: fail`)")
            )
        if self.seen >= RATE_TESTED_FROM and self._unusable > self._limits.max_error_rate * self.seen:
            self._fail(
                BuildError(
                    f"`{self.name}`: {self._unusable} of {self.seen} answers were unusable, above its "
                    f"max_error_rate of {self._limits.max_error_rate:g}",
                    hint="look at the replies, then mend the prompt or raise `max_error_rate`; all answers are kept",
                )
            )


def no_answer(node: Node, errors: Sequence[RowError]) -> BuildError:
    """The error of a node of whose rows not one has an answer: what it had before is better than nothing."""
    first = next(error for error in errors if not error.answered)
    return BuildError(f"`{node.name}`: no row has an answer: {first.message}")


def _placed(rows: list[dict[str, Any]], order: bytes) -> list[dict[str, Any]]:
    """The rows that a task made, with the bytes that sort them into their table."""
    for number, row in enumerate(rows):
        row[ORDER] = order + struct.pack(">I", number)
    return rows


def _tells(made: Made, used: Sequence[CallKey]) -> bool:
    """Whether rows and errors name every call that a task used; a reply of no items, say, leaves none behind."""
    if len(made.rows) == 1 and made.rows[0].get(CALLS) == used:
        return True
    named = {key for row in made.rows for key in row.get(CALLS) or ()}
    named.update(key for error in (*made.errors, *made.notes) for key in error.calls)
    return named.issuperset(used)
