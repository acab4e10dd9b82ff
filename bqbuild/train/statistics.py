"""What scores come to: means by group with 95 % intervals, and paired differences from a baseline.

The same questions are put to every LLM, so a difference is measured question by question: that cancels how hard the
questions are, and shows changes that two separate intervals would hide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

Z = 1.959964
"""The 97.5 % point of the normal distribution."""
T = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
"""The 97.5 % points of Student's t with 1 to 30 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % interval; the bounds are None where one value leaves them unknown."""

    value: float
    low: float | None
    high: float | None


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of `values` with Student's interval. Raises ValueError for no values."""
    mean, error = _mean(values), standard_error(values)
    if error is None:
        return Interval(mean, None, None)
    reach = student_t(len(values) - 1) * error
    return Interval(mean, mean - reach, mean + reach)


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Interval:
    """The mean of `values` minus the baseline's on the same questions, in the same order, with its interval."""
    return mean_interval([value - base for value, base in zip(values, baseline, strict=True)])


def proportion_interval(values: Sequence[float]) -> Interval:
    """The share of ones among ones and zeros with Wilson's interval, which stays inside [0, 1]."""
    n, share = len(values), _mean(values)
    spread = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    middle = share + Z * Z / (2 * n)
    whole = 1 + Z * Z / n
    return Interval(share, max((middle - spread) / whole, 0.0), min((middle + spread) / whole, 1.0))


def standard_error(values: Sequence[float]) -> float | None:
    """The standard error of the mean; None for a single value."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def student_t(degrees: int) -> float:
    """The 97.5 % point of Student's t, to four digits: a table, then Cornish and Fisher's expansion."""
    if degrees <= len(T):
        return T[degrees - 1]
    z2 = Z * Z
    return Z * (1 + (z2 + 1) / (4 * degrees) + (5 * z2 * z2 + 16 * z2 + 3) / (96 * degrees * degrees))


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("no values have no mean")
    return fmean(values)
