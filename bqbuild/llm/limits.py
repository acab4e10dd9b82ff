"""How many requests of one connection may be in flight: adaptive, first come first served, and stoppable.

The limit shrinks when a server says that it has too much, and grows back by one a round of successes, up to what the
user allows.
"""

from __future__ import annotations

import asyncio
from collections import deque

LEAST = 1.0
SHRINK = {"rate_limit": 0.5, "server": 0.8, "timeout": 0.7, "transport": 0.8}
"""What a failure leaves of the limit, by its kind."""


class Limiter:
    """Slots for requests. Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.in_flight = 0
        self.closed = False
        self._limit = float(most)
        self._shrunk_at = 0.0
        self._paused_until = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._sleeping: set[asyncio.Future[None]] = set()

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return int(self._limit)

    async def acquire(self, *, ahead: bool = False) -> None:
        """Wait for a slot; `ahead` of the others where this request has waited before. Returns at once when closed."""
        if self._free() and not self._waiting:
            self.in_flight += 1
            return
        future = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if ahead else self._waiting.append)(future)
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

    def succeeded(self) -> None:
        """A request was answered: grow by one for each round of answers."""
        if self._limit < self.most:
            self._limit = min(self._limit + 1 / self._limit, float(self.most))

    def failed(self, kind: str, started: float) -> None:
        """A request that `started` then failed: shrink, once for all that were in flight at the last shrinking."""
        if kind in SHRINK and started >= self._shrunk_at:
            self._limit = max(self._limit * SHRINK[kind], LEAST)
            self._shrunk_at = asyncio.get_running_loop().time()

    def pause(self, seconds: float) -> None:
        """Let nothing start for so long: the server asked for it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        if until > self._paused_until:
            self._paused_until = until
            loop.call_at(until + 0.001, self._wake)

    def close(self) -> None:
        """Wake everybody who waits or sleeps; they find `closed` set."""
        self.closed = True
        self._wake()
        for future in list(self._sleeping):
            _resolve(future)

    def _free(self) -> bool:
        if self.closed:
            return True
        if self.in_flight >= int(self._limit):
            return False
        return not self._paused_until or asyncio.get_running_loop().time() >= self._paused_until

    def _wake(self) -> None:
        while self._waiting and self._free():
            future = self._waiting.popleft()
            if not future.done():
                self.in_flight += 1
                future.set_result(None)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
