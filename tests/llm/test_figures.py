"""Live figures: percentiles, rates, and when they are told."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from bqbuild.core.events import LlmProgress
from bqbuild.core.records import CallRecord, ChatRequest, Message
from bqbuild.llm.client import Client
from bqbuild.llm.figures import Meter, Sketch
from bqbuild.llm.limits import Limiter
from bqbuild.llm.usage import Usage
from tests.llm.bench import Bench, with_bench
from tests.llm_server import LlmServer


def test_percentiles_are_near_the_true_ones() -> None:
    dice, sketch = random.Random(1), Sketch()
    times = sorted(dice.lognormvariate(0.0, 2.0) for _ in range(20_000))
    for seconds in times:
        sketch.note(seconds)
    for share in (0.01, 0.5, 0.95, 0.999):
        assert sketch.percentile(share) == pytest.approx(times[int(share * len(times)) - 1], rel=0.06)


def test_odd_times_are_times_too() -> None:
    sketch = Sketch()
    assert sketch.percentile(0.5) == 0
    for seconds in (0.0, -1.0, 1e9):
        sketch.note(seconds)
    assert sketch.percentile(0.5) < 0.001
    assert sketch.percentile(1.0) == pytest.approx(1e9, rel=0.06)


def test_rates_are_those_of_the_last_seconds() -> None:
    meter, usage, limiter = Meter("writer"), Usage(), Limiter(4)
    for second in range(100):
        usage.answered += 10 if second < 50 else 1
        usage.output_tokens += 100 if second < 50 else 20
        figures = meter.read(usage, limiter, float(second))
        if second == 49:
            assert (figures.calls_per_second, figures.tokens_per_second) == (10, 100)
    assert (figures.calls_per_second, figures.tokens_per_second) == (1, 20)
    assert (figures.llm, figures.answered, figures.limit) == ("writer", 550, 4)


class Nowhere:
    """A call log that keeps nothing."""

    async def append(self, record: CallRecord) -> None:
        pass

    def room(self) -> int:
        return 1_000


def test_figures_are_told_while_calls_are_under_way_and_once_at_the_end(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.delay = 0.8
    told: list[LlmProgress] = []

    async def check(bench: Bench) -> None:
        client = Client({"writer": bench.spec}, Nowhere(), print, report=told.append)
        requests = [ChatRequest((Message("user", f"question {number}"),)) for number in range(3)]
        await asyncio.gather(*(client.call("writer", client.key("writer", request), request) for request in requests))
        await client.close()

    with_bench(tmp_path, check, base_url=llm_server.url, max_concurrency=2, price={"output": 1e6})
    assert (told[0].in_flight, told[0].waiting, told[0].answered) == (2, 1, 0)
    assert (told[-1].in_flight, told[-1].answered, told[-1].cost) == (0, 3, 6.0)
    assert told[-1].median_seconds >= 0.75
