"""Makes calls: each key at most once at a time, recorded before it counts, within the limits of its connection."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bqbuild.config.specs import ConnectionSpec, PriceSpec
from bqbuild.core.errors import BqError, ProjectError, did_you_mean
from bqbuild.core.events import LlmProgress
from bqbuild.core.records import CallKey, CallRecord, ChatReply, ChatRequest
from bqbuild.llm import provider_kind
from bqbuild.llm.base import Batching, Warn
from bqbuild.llm.connection import Connection, ConnectionDown, Pace, copy_of
from bqbuild.llm.keys import call_key
from bqbuild.llm.openai import usable_urls
from bqbuild.llm.usage import Usage

if TYPE_CHECKING:
    from bqbuild.llm.batch import Batcher

__all__ = ["Client", "ConnectionDown", "Pace", "Usage"]

REPORT_SECONDS = 0.5
"""How often the figures of a connection at work are told."""
DRAIN_SECONDS = 0.02
"""How often it is looked whether the last call has ended, after the user stopped the run."""


class Journal(Protocol):
    """The part of a store's call log that the client needs."""

    def find(self, keys: Sequence[CallKey], *, repay: bool = False) -> dict[CallKey, CallRecord]:
        """The recorded calls among `keys`; asked only for calls that go by batch."""

    async def append(self, record: CallRecord) -> None:
        """Record a call; returns when it is durable. Raises StoreError."""

    def room(self) -> int:
        """How many answers there is room for, those on their way included. Raises StoreError where for none."""


class Client:
    """The connections of a target, opened when first used. Belongs to one event loop.

    `report` is told the figures of each connection, twice a second while it has calls, and once at the end.
    """

    def __init__(  # noqa: PLR0913  # what a run has, and what a test decides
        self,
        connections: Mapping[str, ConnectionSpec],
        calls: Journal,
        warn: Warn,
        *,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.time,
        dice: random.Random | None = None,
        epoch: int = 0,
        report: Callable[[LlmProgress], None] | None = None,
        batching: Batching | None = None,
    ) -> None:
        self._specs = dict(connections)
        self._log = calls
        self._warn = warn
        self._pace = pace or Pace()
        self._clock = clock
        self._dice = dice or random.Random()
        self._epoch = epoch
        self._report = report
        self._alarm: asyncio.TimerHandle | None = None
        self._recording = 0
        self._is_draining = False
        self._identities: dict[str, Mapping[str, Any]] = {}
        self._batching = batching
        self._open: dict[str, Connection] = {}
        self._batchers: dict[str, Batcher] = {}
        self._in_flight: dict[CallKey, asyncio.Future[CallRecord]] = {}

    def identity(self, llm: str) -> Mapping[str, Any]:
        """What makes this LLM the same LLM. Raises ProjectError where it is not there."""
        if llm not in self._identities:
            spec = self._spec(llm)
            self._identities[llm] = provider_kind(spec.provider).identity(spec)
        return self._identities[llm]

    def key(self, llm: str, request: ChatRequest) -> CallKey:
        """The key of a call. Raises ProjectError where the LLM is not there."""
        return call_key(self.identity(llm), request)

    async def call(self, llm: str, key: CallKey, request: ChatRequest, depth: int = 0) -> CallRecord:
        """Ask, record, and return the record once it is durable; an equal call in flight is joined. Where calls wait
        for a connection, those of the greatest `depth` go first.

        Raises ProviderError where no answer came, ConnectionDown where none will come, StoreError where the answer
        could not be recorded.
        """
        while (other := self._in_flight.get(key)) is not None:
            self._usage(llm).shared += 1
            await asyncio.wait((other,))
            if not other.cancelled():
                return other.result()
        future: asyncio.Future[CallRecord] = asyncio.get_running_loop().create_future()
        self._in_flight[key] = future
        try:
            record = await self._make(llm, key, request, depth)
            future.set_result(record)
            return record
        except BqError as error:
            future.set_exception(error)
            future.exception()  # seen: there may be nobody else
            raise
        finally:
            future.cancel()  # where the above was left otherwise, whoever joined makes the call itself
            del self._in_flight[key]

    def usage(self, llm: str) -> Usage:
        """The figures of a connection so far; zeros where it was never used."""
        is_used = llm in self._open or llm in self._batchers
        return copy_of(self._usage(llm)) if is_used else Usage()

    @property
    def under_way(self) -> int:
        """How many calls were sent and are not yet recorded."""
        return self._recording + sum(connection.limiter.in_flight for connection in self._open.values())

    async def drain(self) -> None:
        """Send nothing new, retries included; return when all that was sent is recorded or has failed.

        Calls that wait to be sent go on waiting: whoever drains cancels them afterwards.
        """
        self._is_draining = True
        for connection in self._open.values():
            connection.limiter.freeze()
        while self.under_way:
            await asyncio.sleep(DRAIN_SECONDS)

    async def close(self) -> None:
        """Close every connection that was opened."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
            self._tell(only_busy=False)
        for connection in self._open.values():
            await connection.provider.close()
        for batcher in self._batchers.values():
            await batcher.close()
        self._open.clear()
        self._batchers.clear()

    def _usage(self, llm: str) -> Usage:
        return self._batcher(llm).usage if self._spec(llm).mode == "batch" else self._connection(llm).usage

    async def _make(self, llm: str, key: CallKey, request: ChatRequest, depth: int) -> CallRecord:
        if self._spec(llm).mode == "batch":
            return await self._batcher(llm).call(key, request)
        connection = self._connection(llm)
        reply, seconds = await connection.ask(request, depth)
        cost = call_cost(connection.spec.rates, reply)
        usage = connection.usage
        usage.input_tokens += reply.input_tokens
        usage.output_tokens += reply.output_tokens
        usage.cost += cost
        record = CallRecord(
            key,
            llm,
            self.identity(llm),
            request,
            reply,
            cost=cost,
            seconds=round(seconds, 4),
            created=round(self._clock(), 3),
            epoch=self._epoch,
        )
        self._recording += 1
        try:
            await self._log.append(record)
        finally:
            self._recording -= 1
        return record

    def _connection(self, llm: str) -> Connection:
        connection = self._open.get(llm)
        if connection is None:
            spec = self._spec(llm)
            provider = provider_kind(spec.provider).open(spec, self._warn)
            connection = Connection(llm, spec, provider, self._warn, self._pace, self._dice, self._room)
            self._open[llm] = connection
            if self._is_draining:
                connection.limiter.freeze()
            if self._report is not None and self._alarm is None:
                self._alarm = asyncio.get_running_loop().call_later(REPORT_SECONDS, self._tick)
        return connection

    def _room(self) -> int:
        """How many more calls may be sent. Raises StoreError where no answer more could be kept."""
        return self._log.room() - self.under_way

    def _tick(self) -> None:
        self._tell(only_busy=True)
        self._alarm = asyncio.get_running_loop().call_later(REPORT_SECONDS, self._tick)

    def _tell(self, *, only_busy: bool) -> None:
        now = asyncio.get_running_loop().time()
        for connection in self._open.values():
            limiter = connection.limiter
            if self._report is not None and (limiter.in_flight or limiter.waiting or not only_busy):
                self._report(connection.meter.read(connection.usage, limiter, now))

    def _batcher(self, llm: str) -> Batcher:
        batcher = self._batchers.get(llm)
        if batcher is None:
            from bqbuild.llm.batch import Batcher

            if self._batching is None:
                raise ProjectError(f"connection `{llm}` has `mode: batch`, which needs a store to be kept in")
            spec = self._spec(llm)
            batcher = Batcher(
                name=llm,
                spec=spec,
                url=usable_urls(spec)[0],
                identity=self.identity(llm),
                log=self._log,
                book=self._batching.book,
                warn=self._warn,
                tell=self._batching.tell,
                pace=self._pace,
                clock=self._clock,
                cost_of=call_cost,
                epoch=self._epoch,
                since=self._batching.since,
                repay=self._batching.repay,
            )
            self._batchers[llm] = batcher
        return batcher

    def _spec(self, llm: str) -> ConnectionSpec:
        if llm not in self._specs:
            hint = did_you_mean(llm, self._specs) or f"connections are {', '.join(sorted(self._specs)) or 'none'}"
            raise ProjectError(f"the target has no LLM connection `{llm}`", hint=hint)
        return self._specs[llm]


def call_cost(price: PriceSpec, reply: ChatReply) -> float:
    """Dollars for the tokens of a reply; prices are per million."""
    return (reply.input_tokens * price.input + reply.output_tokens * price.output) / 1_000_000
