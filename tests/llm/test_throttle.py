"""How the limit on requests in flight learns, on servers that exist in arithmetic only."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from bqbuild.llm.throttle import START, Throttle


def drive(
    throttle: Throttle, seconds: float, serve: Callable[[int, float], tuple[str, float]]
) -> tuple[list[str], list[int]]:
    """Keep a server full for so long; `serve(in flight, now)` says what becomes of a request, and how long it takes."""
    now, outcomes, limits = 0.0, [], []
    under_way: list[tuple[float, float, str]] = []
    while now < seconds:
        while len(under_way) < throttle.limit:
            kind, takes = serve(len(under_way), now)
            under_way.append((now + takes, now, kind))
        under_way.sort()
        now, started, kind = under_way.pop(0)
        outcomes.append(kind)
        limits.append(throttle.limit)
        if kind == "ok":
            throttle.succeeded(started, now, 100)
        else:
            throttle.failed(kind, started, now, len(under_way))
    return outcomes, limits


def test_the_limit_halves_once_for_a_storm() -> None:
    throttle = Throttle(64)
    for _ in range(64):
        throttle.failed("rate_limit", 0.0, 1.0)
    assert throttle.limit == 32
    throttle.failed("rate_limit", 1.5, 2.0)
    assert throttle.limit == 16


def test_the_limit_grows_back_to_what_is_allowed() -> None:
    throttle = Throttle(16)
    throttle.failed("rate_limit", 0.0, 1.0)
    assert throttle.limit == 8
    _, limits = drive(throttle, 1000.0, lambda in_flight, now: ("ok", 1.0))
    assert limits[-1] == 16


def test_many_are_not_sent_at_once_but_soon() -> None:
    throttle = Throttle(500)
    assert throttle.limit == START
    _, limits = drive(throttle, 5.0, lambda in_flight, now: ("ok", 1.0))
    assert limits[-1] == 500


def test_a_server_that_takes_ten_at_a_time_is_sent_ten_and_seldom_one_more() -> None:
    outcomes, limits = drive(
        Throttle(64), 2000.0, lambda in_flight, now: ("ok", 1.0) if in_flight < 10 else ("rate_limit", 0.01)
    )
    settled = limits[500:]
    assert 9.0 <= sum(settled) / len(settled) <= 10.5
    assert outcomes[500:].count("rate_limit") < len(settled) / 50


def test_a_server_that_takes_more_than_before_is_sent_more() -> None:
    throttle = Throttle(64)
    drive(throttle, 100.0, lambda in_flight, now: ("ok", 1.0) if in_flight < 4 else ("rate_limit", 0.01))
    assert throttle.limit <= 5
    _, limits = drive(throttle, 1000.0, lambda in_flight, now: ("ok", 1.0))
    assert limits[-1] == 64


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_rows_that_fail_whatever_the_load_leave_the_server_full(share: float) -> None:
    dice = random.Random(1)
    _, limits = drive(
        Throttle(64), 200.0, lambda in_flight, now: ("server" if dice.random() < share else "ok", dice.random() + 0.5)
    )
    assert sum(limits) / len(limits) > 60


@pytest.mark.parametrize("kind", ["server", "timeout", "transport"])
def test_a_server_that_mostly_fails_is_sent_less(kind: str) -> None:
    throttle = Throttle(64)
    drive(throttle, 30.0, lambda in_flight, now: (kind, 1.0))
    assert throttle.limit == 1


def test_bad_requests_do_not_count() -> None:
    throttle = Throttle(4)
    drive(throttle, 30.0, lambda in_flight, now: ("request", 1.0))
    assert throttle.limit == 4


def test_answers_that_take_much_longer_than_usual_shrink_the_limit_but_not_to_nothing() -> None:
    throttle = Throttle(64)
    drive(throttle, 20.0, lambda in_flight, now: ("ok", 1.0))
    assert throttle.limit == 64
    _, limits = drive(throttle, 40.0, lambda in_flight, now: ("ok", 5.0))
    assert 16 <= min(limits) <= 32
    _, limits = drive(throttle, 2000.0, lambda in_flight, now: ("ok", 5.0))
    assert limits[-1] == 64  # it is usual now


def test_a_heavy_tail_is_no_slowness() -> None:
    dice = random.Random(2)
    _, limits = drive(Throttle(64), 1000.0, lambda in_flight, now: ("ok", dice.lognormvariate(0.0, 1.0)))
    assert min(limits) == 64


def test_long_answers_among_short_ones_are_no_slowness() -> None:
    throttle, dice = Throttle(32), random.Random(3)
    for number in range(5000):
        tokens = 5 if number < 2500 or dice.random() < 0.5 else 1000
        throttle.succeeded(0.0, tokens / 50, tokens)
        assert throttle.limit == 32
