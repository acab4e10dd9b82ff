"""Slots: how many, in which order, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from bqbuild.llm.limits import Limiter


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 20))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_no_more_than_the_limit_are_in_flight_and_others_follow_in_order() -> None:
    async def check() -> None:
        limiter, order = Limiter(2), []

        async def work(number: int) -> None:
            await limiter.acquire()
            order.append(number)
            assert limiter.in_flight <= 2
            await asyncio.sleep(0)
            limiter.release()

        await asyncio.gather(*(work(number) for number in range(10)))
        assert order == list(range(10))
        assert limiter.in_flight == 0

    run(check())


def test_who_has_waited_before_goes_first() -> None:
    async def check() -> None:
        limiter, order = Limiter(1), []
        await limiter.acquire()

        async def work(name: str, ahead: bool) -> None:
            await limiter.acquire(ahead=ahead)
            order.append(name)
            limiter.release()

        tasks = [asyncio.create_task(work("new", False)), asyncio.create_task(work("old", True))]
        await settle()
        limiter.release()
        await asyncio.gather(*tasks)
        assert order == ["old", "new"]

    run(check())


def test_a_cancelled_waiter_loses_no_slot() -> None:
    async def check() -> None:
        limiter = Limiter(1)
        await limiter.acquire()
        waiting = asyncio.create_task(limiter.acquire())
        await settle()
        waiting.cancel()
        granted = asyncio.create_task(limiter.acquire())
        await settle()
        limiter.release()
        granted.cancel()  # the slot was given in the same step
        await settle()
        assert limiter.in_flight == 0
        await limiter.acquire()
        limiter.release()

    run(check())


def test_the_limit_halves_once_for_a_storm_and_grows_back() -> None:
    async def check() -> None:
        limiter = Limiter(64)
        started = asyncio.get_running_loop().time()
        await asyncio.sleep(0.001)
        for _ in range(64):
            limiter.failed("rate_limit", started)
        assert limiter.limit == 32
        for _ in range(32 * 4):
            limiter.succeeded()
        assert 34 <= limiter.limit <= 36
        for _ in range(5000):
            limiter.succeeded()
        assert limiter.limit == 64

    run(check())


def test_the_limit_never_falls_below_one_and_bad_requests_do_not_count() -> None:
    async def check() -> None:
        limiter = Limiter(4)
        limiter.failed("request", asyncio.get_running_loop().time())
        assert limiter.limit == 4
        for _ in range(20):
            await asyncio.sleep(0.001)
            limiter.failed("server", asyncio.get_running_loop().time())
        assert limiter.limit == 1

    run(check())


def test_nothing_starts_during_a_pause() -> None:
    async def check() -> None:
        limiter, loop = Limiter(4), asyncio.get_running_loop()
        limiter.pause(0.05)
        limiter.pause(0.01)  # a shorter one changes nothing
        before = loop.time()
        await limiter.acquire()
        assert loop.time() - before >= 0.05

    run(check())


@pytest.mark.parametrize("seconds", [3600.0])
def test_closing_wakes_everybody(seconds: float) -> None:
    async def check() -> None:
        limiter = Limiter(1)
        await limiter.acquire()
        tasks = [
            asyncio.create_task(limiter.acquire()),
            asyncio.create_task(limiter.sleep(seconds)),
        ]
        await settle()
        limiter.close()
        await asyncio.gather(*tasks)
        await limiter.sleep(seconds)
        assert limiter.closed

    run(check())
