"""How a run is to be carried out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from bqbuild.core.records import CallKey


@dataclass(frozen=True, slots=True)
class RunOptions:
    """`full_refresh` builds selected nodes again (calls are still looked up); `refresh_calls` asks for all their
    answers again, `retry` for the answers to these calls; `tests` makes a run a `build`; `free_only` stops before the
    first node that calls an LLM or trains; `publish` moves the environment's pointers; `repay` pays again for calls and
    trainings whose records are damaged; `max_…` limit what the whole run may buy."""

    full_refresh: bool = False
    refresh_calls: bool = False
    retry: frozenset[CallKey] = frozenset()
    tests: bool = False
    free_only: bool = False
    publish: bool = True
    repay: bool = False
    max_calls: int | None = None
    max_cost: float | None = None
    max_tokens: int | None = None
    fail_fast: bool = False
    threads: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))
