"""A client on a real call log, for the tests of the client and what is below it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.events import BatchProgress
from bqbuild.core.records import CallKey, CallRecord, ChatRequest, Message
from bqbuild.llm.base import Batching
from bqbuild.llm.client import Client, Journal, Pace
from bqbuild.store import open_store

T = TypeVar("T")
QUICK = Pace(first_wait=0.001, longest_wait=0.01)


class Bench:
    """A store, a client with the connection `writer`, and the warnings it gave."""

    def __init__(self, path: Path, pace: Pace, log: Journal | None, connection: dict[str, Any]) -> None:
        self.spec = ConnectionSpec.model_validate({"provider": "openai", "model": "m", **connection})
        self.store = open_store(str(path))
        self.pace = pace
        self.warnings: list[str] = []
        self.told: list[BatchProgress] = []
        self.client = Client(
            {"writer": self.spec},
            log or self.store.calls,
            self.warnings.append,
            pace=pace,
            batching=Batching(self.store.batches, self.told.append),
        )

    async def ask(self, text: str, **rest: Any) -> CallRecord:
        """Make the call that asks `text`."""
        request = ChatRequest((Message("user", text),), **rest)
        return await self.client.call("writer", self.client.key("writer", request), request)

    async def ask_all(self, texts: list[str]) -> list[CallRecord | BaseException]:
        """Make many calls at once; failures are given, not raised."""
        return await asyncio.gather(*(self.ask(text) for text in texts), return_exceptions=True)

    def recorded(self, keys: list[CallKey]) -> dict[CallKey, CallRecord]:
        """What the log holds."""
        return self.store.calls.find(keys)


def with_bench(
    path: Path,
    check: Callable[[Bench], Awaitable[T]],
    *,
    pace: Pace = QUICK,
    log: Journal | None = None,
    **connection: Any,
) -> T:
    """Run `check` on a bench whose connection has these keys."""

    async def run() -> T:
        bench = Bench(path, pace, log, connection)
        try:
            return await asyncio.wait_for(check(bench), 60)
        finally:
            await bench.client.close()
            bench.store.close()

    return asyncio.run(run())
