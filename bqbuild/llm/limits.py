"""Slots for the requests of one connection: by urgency, then first come first served, within its rates; stoppable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush

from bqbuild.llm.rates import Rates
from bqbuild.llm.throttle import Throttle


class Limiter:
    """Slots for requests. Belongs to one event loop.

    Free are as many as the throttle allows, but no more than `capacity()`, which a provider with several servers knows;
    and a request starts when `rates` allow one of its size.
    """

    def __init__(self, most: int, rates: Rates | None = None, capacity: Callable[[], int] | None = None) -> None:
        self.throttle = Throttle(most)
        self.in_flight = 0
        self.closed = False
        self.frozen = False
        self._rates = rates
        self._capacity = capacity
        self._paused_until = 0.0
        self._waiting: list[tuple[float, int, asyncio.Future[None], float]] = []
        self._came = 0
        self._sleeping: set[asyncio.Future[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        limit = self.throttle.limit
        return limit if self._capacity is None else min(limit, self._capacity())

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return len(self._waiting)

    async def acquire(self, *, ahead: bool = False, depth: int = 0, tokens: float = 0.0) -> None:
        """Wait for a slot, before all requests of less `depth`, and `ahead` of all others where this one has waited
        before. Returns at once when closed."""
        if not self._waiting and self._free(tokens):
            self._start(tokens)
            return
        future = asyncio.get_running_loop().create_future()
        self._came += 1
        heappush(self._waiting, (-float("inf") if ahead else -depth, self._came, future, tokens))
        self._wake()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Give the slot back."""
        self.in_flight -= 1
        if self._waiting:
            self._wake()

    async def sleep(self, seconds: float) -> None:
        """Wait without a slot; cut short when the limiter is closed."""
        if self.closed or seconds <= 0:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _resolve, future)
        self._sleeping.add(future)
        try:
            await future
        finally:
            timer.cancel()
            self._sleeping.discard(future)

    def pause(self, seconds: float) -> None:
        """Let nothing start for so long: the server asked for it."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)

    def freeze(self) -> None:
        """Let nothing start any more; who waits goes on waiting."""
        self.frozen = True

    def close(self) -> None:
        """Wake everybody who waits or sleeps; they find `closed` set."""
        self.closed = True
        self._wake()
        for future in list(self._sleeping):
            _resolve(future)
        if self._alarm is not None:
            self._alarm.cancel()

    def _start(self, tokens: float) -> None:
        self.in_flight += 1
        if self._rates is not None:
            self._rates.take(tokens)

    def _free(self, tokens: float) -> bool:
        if self.closed:
            return True
        if self.frozen or self.in_flight >= self.limit:
            return False
        if not self._paused_until and self._rates is None:
            return True
        now = asyncio.get_running_loop().time()
        wait = self._paused_until - now
        if wait <= 0:
            self._paused_until = 0.0
        if self._rates is not None:
            wait = max(wait, self._rates.wait(tokens, now))
        if wait <= 0:
            return True
        self._wake_at(now + wait)
        return False

    def _wake_at(self, when: float) -> None:
        # a moment later, or the clock's own grain could wake the queue too early, over and over
        when += 0.001
        if self._alarm is not None and not self._alarm.cancelled() and self._alarm.when() <= when:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(when, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            _, _, future, tokens = self._waiting[0]
            if future.done():  # cancelled meanwhile
                heappop(self._waiting)
                continue
            if not self._free(tokens):
                return
            heappop(self._waiting)
            self._start(tokens)
            future.set_result(None)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
