"""The learning rate of every step, from the number of the step alone."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["wsd", "cosine", "constant"]
COSINE_FLOOR = 0.1
"""Where the cosine ends, as a part of the peak."""


def learning_rate(step: int, steps: int, *, peak: float, schedule: Schedule, warmup: float, decay: float) -> float:
    """The rate of step `step` (from 0) of `steps`.

    `warmup` and `decay` are parts of all steps. `wsd` warms up, stays at the peak and falls in a straight line to 0
    over the last `decay` (arXiv 2404.06395); `cosine` falls from the end of the warm-up to a tenth of the peak.
    """
    warm = round(warmup * steps)
    if step < warm:
        return peak * (step + 1) / warm
    if schedule == "cosine":
        done = (step - warm) / max(steps - warm, 1)
        return peak * (COSINE_FLOOR + (1 - COSINE_FLOOR) * 0.5 * (1 + math.cos(math.pi * done)))
    falling = round(decay * steps) if schedule == "wsd" else 0
    if step >= steps - falling:
        return peak * (steps - step) / (falling + 1)
    return peak
