"""Means, intervals and paired differences, against scipy's and against simulation."""

from __future__ import annotations

import math
import random

import pytest

from bqbuild.train.statistics import (
    mean_interval,
    paired_difference,
    proportion_interval,
    standard_error,
    student_t,
)


def bound(value: float | None) -> float:
    assert value is not None
    return value


@pytest.mark.parametrize("degrees", [1, 2, 5, 29, 30, 31, 60, 200, 10_000])
def test_students_t_is_scipys(degrees: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert student_t(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=2e-4)


def test_a_mean_has_students_interval() -> None:
    interval = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert interval.value == 2.5
    reach = 3.1824 * math.sqrt(5 / 3) / 2
    assert (interval.low, interval.high) == pytest.approx((2.5 - reach, 2.5 + reach))


def test_one_value_has_a_mean_and_no_interval() -> None:
    interval = mean_interval([0.5])
    assert (interval.value, interval.low, interval.high) == (0.5, None, None)
    assert standard_error([0.5]) is None


def test_no_values_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


def test_pairing_finds_a_small_change_among_questions_of_very_different_difficulty() -> None:
    draw = random.Random(0)
    base = [draw.gauss(0, 10) for _ in range(60)]
    trained = [value + 0.1 + draw.gauss(0, 0.05) for value in base]
    paired = paired_difference(trained, base)
    assert 0 < bound(paired.low) < 0.1 < bound(paired.high)
    assert bound(mean_interval(trained).low) < mean_interval(base).value


def test_paired_differences_need_the_same_questions() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        paired_difference([1.0, 2.0], [1.0])


def test_the_interval_of_a_difference_covers_it_nineteen_times_in_twenty() -> None:
    draw = random.Random(1)
    covered = 0
    for _ in range(400):
        difference = paired_difference([draw.gauss(0.3, 1) for _ in range(12)], [0.0] * 12)
        covered += bound(difference.low) <= 0.3 <= bound(difference.high)
    assert 0.92 <= covered / 400 <= 0.98


def test_a_share_of_nought_or_one_has_an_interval_inside_the_bounds() -> None:
    none, every = proportion_interval([0.0] * 10), proportion_interval([1.0] * 10)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(0.2775, abs=1e-3)
    assert (every.value, every.high) == pytest.approx((1.0, 1.0))
    assert every.low == pytest.approx(0.7225, abs=1e-3)
