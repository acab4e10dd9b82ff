"""Damage that a run meets: a damaged table is built again in the same run; what would cost money or a training is not.

A table that is found to be damaged has been set aside by the store. Whoever wanted to read it waits here until the node
that made it has made it again, from recorded calls, and then begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

from bqbuild.core.durations import duration
from bqbuild.core.events import Warned
from bqbuild.core.hashing import Digest
from bqbuild.core.records import Node, NodeName
from bqbuild.plan.rebuild import Decision
from bqbuild.run.ledger import Ledger
from bqbuild.store.base import DamagedError

Attempt = Callable[[], Awaitable[None]]
Build = Callable[[Node, Decision], Awaitable[None]]


class Healing:
    """Builds damaged tables of this run again, one at a time; `build` builds one node by itself."""

    def __init__(self, ledger: Ledger, build: Build, *, repay: bool) -> None:
        self._ledger = ledger
        self._build = build
        self._repay = repay
        self._lock = asyncio.Lock()

    async def attempt(self, work: Attempt) -> None:
        """Do the work, again after each damaged table that it met was built again. Raises BqError."""
        await self._until_sound(work, self._lock)

    def check(self, node: Node, decision: Decision) -> None:
        """Refuse to train again what was trained and is damaged or gone. Raises DamagedError."""
        if node.kind != "train" or self._repay or decision.key is None or decision.reasons[0].code != "missing_table":
            return
        store = self._ledger.session.store
        trace = store.traces.find([decision.key]).get(decision.key)
        seconds = trace.stats.get("seconds") if trace is not None else None
        took = "it is not recorded how long that took" if seconds is None else f"it took {duration(seconds)}"
        known = self._ledger.state.damage.get(node.name)
        what = known.message if known is not None else f"the table or the checkpoint of `{node.name}` is missing"
        raise DamagedError(
            f"{what}: `{node.name}` would have to be trained again, and {took}",
            hint="restore it from a copy (what was set aside is in the store's folder `damaged`); or run with --repay, "
            "which trains again",
        )

    async def _until_sound(self, work: Attempt, lock: AbstractAsyncContextManager[None]) -> None:
        healed: set[Digest] = set()
        while True:
            try:
                return await work()
            except DamagedError as error:
                if error.digest is None or error.digest in healed:
                    raise
                healed.add(error.digest)
                async with lock:
                    await self._heal(error, error.digest)

    async def _heal(self, error: DamagedError, digest: Digest) -> None:
        """Build the nodes again that made the table, unless that has been done meanwhile."""
        tables = self._ledger.session.store.tables
        makers = self._makers(digest)
        if not makers:
            raise error
        for name in makers:
            if tables.find(digest) is not None:
                return
            # what this node reads may be damaged as well; the lock is ours already
            await self._until_sound(partial(self._make, self._ledger.session.node(name), error), nullcontext())

    def _makers(self, digest: Digest) -> list[NodeName]:
        """The nodes of this run that came to this table, in the order of the graph."""
        ledger = self._ledger
        outputs = {name: ledger.state.outputs.get(name) for name in ledger.session.dag.order if name in ledger.endings}
        return [
            name
            for name, output in outputs.items()
            if output is not None and digest in {table.digest for table in output.tables.values()}
        ]

    async def _make(self, node: Node, error: DamagedError) -> None:
        self._ledger.state.forget(node.name)
        decision, _ = await asyncio.to_thread(self._ledger.state.decide, node)
        if decision.trace is not None:
            return
        self.check(node, decision)
        self._ledger.emit(Warned(f"{error.message}; `{node.name}` is built again from what is recorded", node.name))
        self._ledger.reopen(node)
        await self._build(node, decision)
