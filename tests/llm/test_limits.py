"""Slots: how many, in which order, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from bqbuild.llm.limits import Limiter
from bqbuild.llm.rates import Rates


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


def test_the_rates_decide_when_the_next_one_starts() -> None:
    async def check() -> None:
        limiter, loop = Limiter(50, Rates(6000, None)), asyncio.get_running_loop()  # 100 at once, then 98 a second
        began = loop.time()
        await asyncio.gather(*(limiter.acquire() for _ in range(50)))
        for _ in range(50):
            limiter.release()
        await asyncio.gather(*(limiter.acquire() for _ in range(50)))
        for _ in range(50):
            limiter.release()
        await asyncio.gather(*(limiter.acquire() for _ in range(20)))
        assert loop.time() - began >= 20 / 100

    run(check())


def test_a_provider_that_takes_less_than_the_throttle_is_not_sent_more() -> None:
    async def check() -> None:
        room = 2
        limiter = Limiter(8, capacity=lambda: room)
        assert limiter.limit == 2
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(6)]
        await settle()
        assert (limiter.in_flight, limiter.waiting) == (2, 4)
        room = 4
        limiter.release()
        await settle()
        assert limiter.in_flight == 4
        limiter.close()
        await asyncio.gather(*waiting)

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
