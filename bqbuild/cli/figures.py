"""Counts, tokens and dollars in words."""

from __future__ import annotations

from collections.abc import Iterable

from bqbuild.core.events import Counts, LlmProgress


def figures(counts: Counts) -> str:
    """`120 rows · 80 new, 40 cached calls · 12,345 → 678 tokens · $0.0123`, without what is nothing."""
    parts = [f"{counts.rows:,} {'row' if counts.rows == 1 else 'rows'}"]
    if counts.new_calls or counts.cached_calls or counts.failed_calls:
        parts.append(spending(counts))
    return " · ".join(parts)


def spending(counts: Counts) -> str:
    """Calls, tokens and dollars."""
    calls = f"{counts.new_calls:,} new, {counts.cached_calls:,} cached calls"
    if counts.failed_calls:
        calls += f", {counts.failed_calls:,} failed"
    parts = [calls]
    if counts.input_tokens or counts.output_tokens:
        parts.append(f"{counts.input_tokens:,} → {counts.output_tokens:,} tokens")
    if counts.cost:
        parts.append(f"${counts.cost:.4f}")
    return " · ".join(parts)


def pace(llm: LlmProgress) -> str:
    """`41.5 calls/s · 64 in flight · 1.2 s, 95 % within 4 s · 12,345 tokens/s · 3 retries`, without what is nothing."""
    parts = [f"{llm.calls_per_second:,.1f} calls/s", f"{llm.in_flight:,} in flight"]
    if llm.waiting:
        parts[-1] += f" of {llm.in_flight + llm.waiting:,}"
    if llm.answered:
        parts.append(f"{_time(llm.median_seconds)}, 95 % within {_time(llm.slow_seconds)}")
    if llm.tokens_per_second:
        parts.append(f"{llm.tokens_per_second:,.0f} tokens/s")
    if llm.retries:
        parts.append(f"{llm.retries:,} {'retry' if llm.retries == 1 else 'retries'}")
    return " · ".join(parts)


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 0.95 else f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def total(parts: Iterable[Counts]) -> Counts:
    """The sum of counts."""
    parts = list(parts)
    return Counts(
        rows=sum(part.rows for part in parts),
        new_calls=sum(part.new_calls for part in parts),
        cached_calls=sum(part.cached_calls for part in parts),
        failed_calls=sum(part.failed_calls for part in parts),
        input_tokens=sum(part.input_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
        cost=sum(part.cost for part in parts),
    )


def size(count: float) -> str:
    """Bytes in the unit that suits them: `1.4 MB`."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
