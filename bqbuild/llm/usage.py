"""What went over a connection."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Usage:
    """What went over a connection: requests sent (retries are requests too), their ends, tokens and dollars."""

    requests: int = 0
    retries: int = 0
    answered: int = 0
    failed: int = 0
    shared: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
