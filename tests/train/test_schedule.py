"""Learning rates."""

from __future__ import annotations

import pytest

from bqbuild.train.schedule import Schedule, learning_rate


def rates(schedule: Schedule, steps: int = 20, warmup: float = 0.1, decay: float = 0.25) -> list[float]:
    return [
        learning_rate(step, steps, peak=1.0, schedule=schedule, warmup=warmup, decay=decay) for step in range(steps)
    ]


def test_wsd_warms_up_stays_and_falls_in_a_straight_line() -> None:
    curve = rates("wsd")
    assert curve[:2] == [0.5, 1.0]
    assert set(curve[2:15]) == {1.0}
    assert curve[15:] == pytest.approx([5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_cosine_falls_from_the_peak_to_a_tenth_of_it() -> None:
    curve = rates("cosine", steps=1000)
    assert curve[100] == 1.0
    assert curve[100:] == sorted(curve[100:], reverse=True)
    assert curve[-1] == pytest.approx(0.1, abs=1e-3)


def test_constant_stays_after_the_warm_up() -> None:
    assert set(rates("constant")[2:]) == {1.0}


@pytest.mark.parametrize("schedule", ["wsd", "cosine", "constant"])
def test_no_step_has_a_rate_of_zero(schedule: Schedule) -> None:
    for steps in (1, 2, 3, 7):
        assert all(rate > 0 for rate in rates(schedule, steps, warmup=0.05, decay=1.0))


def test_a_run_without_warm_up_starts_at_the_peak() -> None:
    assert rates("wsd", warmup=0.0)[0] == 1.0
