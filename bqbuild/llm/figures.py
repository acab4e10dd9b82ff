"""What a connection does now: how fast, how long answers take, what it costs. Memory is bounded; no I/O."""

from __future__ import annotations

import math
from collections import deque

from bqbuild.core.events import LlmProgress
from bqbuild.llm.limits import Limiter
from bqbuild.llm.usage import Usage

WINDOW_SECONDS = 10.0
"""What "now" means for calls and tokens a second."""
_STEP = 1.1
_SCALE = 1 / math.log(_STEP)
_SHORTEST = 1e-4


class Sketch:
    """Percentiles of times, each within 5 % of the true one: counts in buckets that grow by a tenth, as in DDSketch."""

    __slots__ = ("_buckets", "count")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count = 0

    def note(self, seconds: float) -> None:
        """One more time."""
        bucket = int(math.log(max(seconds, _SHORTEST) / _SHORTEST) * _SCALE)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1

    def percentile(self, share: float) -> float:
        """The time that this share of all does not exceed; 0 where nothing was noted."""
        left = math.ceil(share * self.count)
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return float(_SHORTEST * _STEP ** (bucket + 0.5))
        return 0.0


class Meter:
    """The figures of one connection over time. Each reading looks back to the oldest one in the window."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seconds = Sketch()
        self._readings: deque[tuple[float, int, int]] = deque()
        self.note = self._seconds.note

    def read(self, usage: Usage, limiter: Limiter, now: float) -> LlmProgress:
        """The figures now."""
        tokens = usage.input_tokens + usage.output_tokens
        self._readings.append((now, usage.answered, tokens))
        while len(self._readings) > 2 and self._readings[1][0] <= now - WINDOW_SECONDS:
            self._readings.popleft()
        since, answered, had = self._readings[0]
        elapsed = max(now - since, 1e-9)
        return LlmProgress(
            llm=self._name,
            in_flight=limiter.in_flight,
            limit=limiter.limit,
            waiting=limiter.waiting,
            answered=usage.answered,
            failed=usage.failed,
            retries=usage.retries,
            calls_per_second=round((usage.answered - answered) / elapsed, 3),
            tokens_per_second=round((tokens - had) / elapsed, 1),
            median_seconds=round(self._seconds.percentile(0.5), 4),
            slow_seconds=round(self._seconds.percentile(0.95), 4),
            cost=usage.cost,
        )
