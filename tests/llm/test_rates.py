"""Quotas a minute, on a clock that is an argument."""

from __future__ import annotations

import random
from collections import deque

import pytest

from bqbuild.core.records import ChatReply, ChatRequest, Message
from bqbuild.llm.rates import Bucket, Rates

SAY = ChatRequest((Message("user", "x" * 400),), {"max_tokens": 500})


@pytest.mark.parametrize("per_minute", [0.5, 1, 7, 60, 100, 600, 6000])
def test_no_minute_sees_more_than_the_quota_and_little_is_left_unused(per_minute: float) -> None:
    bucket, now, sent = Bucket(per_minute), 100.0, deque[float]()
    most = total = 0
    minutes = max(5, round(5 / per_minute))
    while now < 100.0 + 60 * minutes:
        if wait := bucket.wait(1.0, now):
            now += wait
            continue
        bucket.take(1.0)
        total += 1
        sent.append(now)
        while sent[0] <= now - 60 + 1e-6:
            sent.popleft()
        most = max(most, len(sent))
    assert most <= max(per_minute, 1)
    assert total >= 0.97 * per_minute * minutes


def test_a_clock_that_jumps_back_gives_nothing_and_takes_nothing() -> None:
    bucket = Bucket(60)
    assert bucket.wait(1.0, 1000.0) == 0
    bucket.take(1.0)
    assert bucket.wait(1.0, 10.0) == pytest.approx(1.0)
    assert bucket.wait(1.0, 11.0) == pytest.approx(0.0, abs=1e-6)


def test_a_request_larger_than_a_seconds_worth_waits_for_a_full_bucket_and_is_paid_for_afterwards() -> None:
    bucket = Bucket(6000)
    assert bucket.wait(1000.0, 0.0) == 0
    bucket.take(1000.0)
    assert bucket.wait(1.0, 0.0) == pytest.approx(901 / (5901 / 60))


def test_tokens_are_estimated_and_then_corrected_by_what_the_server_counted() -> None:
    """Replies are far shorter than `max_tokens`: what is sent follows the replies, and the quota is used."""
    rates, dice, now, counted = Rates(None, 60_000), random.Random(1), 0.0, 0
    assert rates.estimate(SAY) >= 600
    while now < 600:
        estimate = rates.estimate(SAY)
        if wait := rates.wait(estimate, now):
            now += wait
            continue
        rates.take(estimate)
        reply = ChatReply("x", input_tokens=100, output_tokens=dice.randint(20, 60))
        counted += 140
        rates.answered(SAY, estimate, reply)
    assert 0.93 * 600_000 <= counted <= 1.01 * 600_000
    assert rates.estimate(SAY) == pytest.approx(140, rel=0.2)


def test_without_usage_the_estimate_stays() -> None:
    rates = Rates(None, 600)
    estimate = rates.estimate(SAY)
    rates.take(estimate)
    before = rates.wait(10.0, 0.0)
    rates.answered(SAY, estimate, ChatReply("x"))
    assert rates.wait(10.0, 0.0) == before > 0
    assert rates.estimate(SAY) == estimate


def test_what_the_server_refused_used_no_tokens() -> None:
    rates = Rates(None, 600)
    rates.take(700)
    assert rates.wait(10.0, 0.0) > 0
    rates.refused(700)
    assert rates.wait(10.0, 0.0) == 0


def test_without_a_quota_nothing_waits() -> None:
    rates = Rates(None, None)
    assert rates.estimate(SAY) == 0
    rates.take(0)
    assert rates.wait(0, 0.0) == 0
