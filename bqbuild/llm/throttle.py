"""How many requests a server may be sent at a time: learned from what it does with those that it has. Pure.

Additive increase and multiplicative decrease (Chiu and Jain, 1989), with two additions. A limit at which the server
had too much is remembered and approached again slowly (as in TCP CUBIC, RFC 9438), or a server that takes 4 at a time
would refuse every fifth request for ever. And latency counts as in Netflix' concurrency-limits (Gradient2): answers
that take much longer than such answers used to take shrink the limit before anything is refused.
"""

from __future__ import annotations

LEAST = 1.0
START = 64
"""Requests in flight at first; where more are allowed, the limit doubles each round until the first trouble."""
SHRINK = {"rate_limit": 0.5, "server": 0.8, "timeout": 0.7, "transport": 0.8}
"""What a failure leaves of the limit, by its kind."""
TROUBLE = 0.4
"""The share of recent requests that must have failed before failures other than a refusal shrink the limit: some rows
fail whatever the load is, and a server that is not overloaded should stay full."""
CAREFUL = 16
"""Rounds that it takes to try again the limit at which the server had too much."""
SLOWER = 2.0
"""How many times longer than usual answers must take, on the average of a round, to shrink the limit."""
SLOW_FLOOR = 0.25
"""Latency alone leaves this share of what is allowed: it may be the server's other users, or the hour."""
_RECENT = 1 / 32
_ADAPT = 500
_LONGEST = 8.0


class Throttle:
    """The limit on requests in flight at one server: grows while it is healthy, up to `most`."""

    __slots__ = ("_answers", "_is_starting", "_latency", "_limit", "_shrunk_at", "_trouble", "_wall", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = float(min(most, START))
        self._is_starting = most > START
        self._wall = float("inf")
        self._answers = 0
        self._trouble = 0.0
        self._shrunk_at = float("-inf")
        self._latency = _Latency()

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return int(self._limit)

    def succeeded(self, started: float, now: float, tokens: int = 0) -> None:
        """A request that `started` then was answered with so many tokens."""
        self._answers += 1
        self._trouble -= self._trouble * _RECENT
        if self._limit < self.most:
            self._grow()
        self._latency.note(now - started, tokens)
        if self._latency.count >= max(self._limit, 20.0):
            slower = self._latency.take()
            floor = max(self.most * SLOW_FLOOR, LEAST)
            if slower > SLOWER and self._limit > floor and started >= self._shrunk_at:
                self._shrink(max(self._limit * max(SLOWER / slower, 0.5), floor), now)

    def failed(self, kind: str, started: float, now: float, in_flight: int = 0) -> None:
        """A request that `started` then failed, `in_flight` others being under way: shrink, once for all that were in
        flight at the last shrinking."""
        if kind not in SHRINK:
            return
        self._trouble += (1.0 - self._trouble) * _RECENT
        if started < self._shrunk_at:
            return
        if kind != "rate_limit":
            if self._trouble >= TROUBLE:
                self._shrink(self._limit * SHRINK[kind], now)
        elif self._answers >= self._limit / 2:  # it took nearly all: what it has now is what it can take
            # several such refusals in a row are a storm all the same
            self._answers = min(self._answers, 8 * self.limit) // 2
            self._shrink(min(max(float(in_flight), self._limit * SHRINK[kind]), self._limit - 1), now)
        else:
            self._answers = 0
            self._shrink(self._limit * SHRINK[kind], now)

    def restart(self) -> None:
        """The server is back, or may be: begin with one request at a time."""
        self._limit, self._wall, self._is_starting = LEAST, float("inf"), True

    def _grow(self) -> None:
        if self._is_starting:
            step = 1.0
        elif int(self._limit) + 1 < self._wall:
            step = 1 / self._limit
        else:
            step = 1 / (CAREFUL * self._limit)
        self._limit = min(self._limit + step, float(self.most))
        if self._limit >= self._wall:
            self._wall = float("inf")  # unless it is refused again, the server takes more than it did

    def _shrink(self, limit: float, now: float) -> None:
        self._wall = float(int(self._limit))
        self._limit = max(limit, LEAST)
        self._shrunk_at = now
        self._is_starting = False


class _Latency:
    """How long answers take compared with what is usual. Long answers take longer, so each size has its own usual."""

    __slots__ = ("_seen", "_total", "_usual", "count")

    def __init__(self) -> None:
        self._usual: dict[int, float] = {}
        self._seen: dict[int, int] = {}
        self.count = 0
        self._total = 0.0

    def note(self, seconds: float, tokens: int) -> None:
        size = tokens.bit_length()
        usual = self._usual.get(size, seconds)
        seen = self._seen[size] = min(self._seen.get(size, 0) + 1, _ADAPT)
        # one answer of a heavy tail must not count for a round
        self._total += min(seconds / usual, _LONGEST) if usual > 0 and seen > 10 else 1.0
        self.count += 1
        self._usual[size] = usual + (seconds - usual) / seen

    def take(self) -> float:
        """The average since it was last taken: 1 is as usual, 2 is twice as long."""
        average = self._total / self.count
        self._total, self.count = 0.0, 0
        return average
