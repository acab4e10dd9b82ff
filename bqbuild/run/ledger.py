"""The books of a run: what began, what it bought, how it ended, and what is recorded of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bqbuild.core.errors import BqError
from bqbuild.core.events import Listener, NodeFinished, NodeResult, NodeStarted
from bqbuild.core.hashing import Digest
from bqbuild.core.records import Node, NodeName, ReadInput, Trace
from bqbuild.plan.rebuild import PREPARED
from bqbuild.run.desk import Desk, Tally
from bqbuild.run.paid import connections_of
from bqbuild.run.results import node_result
from bqbuild.run.session import Session
from bqbuild.run.state import Output, State


@dataclass(frozen=True, slots=True)
class Ending:
    """How a node ended, for the nodes below it: whether they may build on it."""

    result: NodeResult
    is_usable: bool


class Ledger:
    """Everything that builds in one run writes here. Used from the event loop's thread but for `record`."""

    def __init__(
        self,
        session: Session,
        state: State,
        desk: Desk,
        names: Sequence[NodeName],
        emit: Listener,
        *,
        is_preparing: bool = False,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.session = session
        self.state = state
        self.desk = desk
        self.emit = emit
        self.endings: dict[NodeName, asyncio.Future[Ending]] = {name: loop.create_future() for name in names}
        self.tallies: dict[NodeName, Tally] = {}
        self.has_failed = False
        self._is_preparing = is_preparing
        self._started: dict[NodeName, float] = {}
        self._reopened: set[NodeName] = set()

    def finish(self, node: Node, status: str, reason: str, output: Output | None = None) -> None:
        """A node has ended."""
        if self.endings[node.name].done():
            if node.name not in self._reopened:
                return
            self._reopened.discard(node.name)
            self.endings[node.name] = self.endings[node.name].get_loop().create_future()
        began = self._started.get(node.name)
        tables = output.tables if output else {}
        tally = self.tallies.get(node.name, Tally())
        tally.rows = tables[""].rows if "" in tables else tally.rows
        seconds = round(time.monotonic() - began, 3) if began is not None else 0.0
        result = node_result(node, status, reason, tables, counts=tally.counts(), seconds=seconds)
        self.has_failed |= status == "error"
        self.endings[node.name].set_result(Ending(result, output is not None))
        self.emit(NodeFinished(result))

    def reopen(self, node: Node) -> None:
        """A node that has ended is to be built again: how it ends then counts. Until that, its first end does."""
        self._reopened.add(node.name)

    def fail(self, node: Node, error: BqError) -> None:
        """A node could not be built."""
        self.finish(node, "error", str(error))

    def start(self, node: Node, reason: str, rows: int | None) -> None:
        """A node is about to be built."""
        self._started[node.name] = time.monotonic()
        self.tallies[node.name] = Tally()
        self.emit(NodeStarted(node.name, reason, rows))

    def record(self, node: Node, key: Digest, inputs: dict[str, ReadInput], output: Output, missing: int) -> None:
        """Write down what was built, then let the environment see it."""
        recipe = self.session.recipe(node.name)
        tally = self.tallies[node.name]
        stats = {
            "rows": output.tables[""].rows,
            "missing": missing,
            "calls": tally.new,
            "cost": tally.cost,
            "seconds": round(time.monotonic() - self._started[node.name], 3),
        }
        stats |= self.state.freshness.stats(node, tally.kept + missing, is_told=tally.is_told)
        if self._is_preparing:
            stats[PREPARED] = True
        trace = Trace(
            key=key,
            node=node.name,
            kind=node.kind,
            recipe=recipe.digest,
            components=recipe.components,
            inputs=inputs,
            outputs={side: table.digest for side, table in output.tables.items()},
            complete=missing == 0,
            stats=stats,
        )
        self.session.store.definitions.put(recipe.digest, self.session.parts(node.name))
        self.session.store.traces.put(trace, bytes(tally.keys) if connections_of(node) else None)
        self.state.settle(node.name, output)

    def adopt(self, trace: Trace) -> None:
        """What `plan` built ahead is now built: a later return to it is no news."""
        if PREPARED in trace.stats:
            stats = {name: value for name, value in trace.stats.items() if name != PREPARED}
            self.session.store.traces.put(replace(trace, stats=stats))

    def finish_built(self, node: Node, reason: str, output: Output, missing: int) -> None:
        """A node was built, whole or but for rows that had no answer."""
        if missing:
            rows = "row has" if missing == 1 else "rows have"
            stopped = self.tallies[node.name].stopped
            why = f": {stopped}" if stopped else "; `bqbuild run` asks again"
            self.finish(node, "partial", f"{missing} {rows} no answer{why}", output)
        elif kept := self.tallies[node.name].kept:
            answers = "answer is the earlier one" if kept == 1 else "answers are the earlier ones"
            why = self.tallies[node.name].stopped or "no new one came; the same command asks again"
            self.finish(node, "partial", f"{kept} {answers}: {why}", output)
        else:
            self.finish(node, "success", reason, output)
