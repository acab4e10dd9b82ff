"""Leases of a run: while it builds a node, other runs wait that would build it too, or would ask the same questions.

Nodes of one run share a lease, since a run sends equal requests once anyhow. Leases are taken in the order of their
names, here and in every other run: so nobody waits in a circle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

from bqbuild.core.hashing import Digest, digest
from bqbuild.core.records import NodeName, Recipe
from bqbuild.graph.recipe import asked_of
from bqbuild.store.base import Leases


@dataclass(slots=True)
class _Lease:
    """One lease of this run, held while `holders` is not 0."""

    holders: int = 0
    waited: bool = False
    stack: ExitStack = field(default_factory=ExitStack)
    taking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Turns:
    """The leases that one run holds. Used from the event loop's thread."""

    def __init__(self, leases: Leases, nodes: int) -> None:
        self._leases = leases
        self._held: dict[Digest, _Lease] = {}
        # threads of a kind of their own: were those who work among those who wait, all could wait
        self._threads = ThreadPoolExecutor(max(1, nodes), thread_name_prefix="lease")

    @asynccontextmanager
    async def take(self, nodes: Iterable[tuple[NodeName, Recipe]]) -> AsyncIterator[bool]:
        """Hold what building these nodes needs. The value is True where another run had to be waited for.

        Raises StoreError.
        """
        waited = False
        taken: list[_Lease] = []
        try:
            for name in sorted(_names(nodes)):
                lease = await self._join(name)
                taken.append(lease)
                waited |= lease.waited
            yield waited
        finally:
            for lease in taken:
                lease.holders -= 1
                if not lease.holders:
                    lease.stack.close()

    def close(self) -> None:
        """Start no thread any more; those that wait give up when the store is closed."""
        self._threads.shutdown(wait=False)

    async def _join(self, name: Digest) -> _Lease:
        lease = self._held.setdefault(name, _Lease())
        async with lease.taking:
            if not lease.holders:
                loop = asyncio.get_running_loop()
                hold = self._leases.hold(name)
                lease.waited = await loop.run_in_executor(self._threads, lease.stack.enter_context, hold)
            lease.holders += 1
        return lease


def _names(nodes: Iterable[tuple[NodeName, Recipe]]) -> set[Digest]:
    names: set[Digest] = set()
    for name, recipe in nodes:
        names |= {digest(["node", name, recipe.digest]), *(digest(["asks", asked]) for asked in asked_of(recipe))}
    return names
