"""What a whole run may spend. A call is reserved with the most that it can use before it is sent, so that calls in
flight never cross the limit together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spending:
    """Calls, dollars and tokens (of prompts and replies together)."""

    calls: int = 0
    cost: float = 0.0
    tokens: int = 0

    def plus(self, other: Spending, sign: int = 1) -> Spending:
        """The sum, or with -1 the difference."""
        return Spending(
            self.calls + sign * other.calls, self.cost + sign * other.cost, self.tokens + sign * other.tokens
        )


@dataclass(slots=True)
class Purse:
    """The limits of a run (None: no limit), what it has spent, and what calls in flight may still spend."""

    max_calls: int | None = None
    max_cost: float | None = None
    max_tokens: int | None = None
    spent: Spending = Spending()
    reserved: Spending = Spending()

    def refusal(self, most: Spending) -> str | None:
        """Why a call that uses `most` at most may not be sent; None where it may."""
        after = self.spent.plus(self.reserved).plus(most)
        if self.max_calls is not None and after.calls > self.max_calls:
            return f"--max-calls {self.max_calls} is reached"
        if self.max_cost is not None and after.cost > self.max_cost:
            return f"one more call could cross --max-cost {self.max_cost:g}"
        if self.max_tokens is not None and after.tokens > self.max_tokens:
            return f"one more call could cross --max-tokens {self.max_tokens}"
        return None

    def reserve(self, most: Spending) -> None:
        """A call is about to be sent."""
        self.reserved = self.reserved.plus(most)

    def settle(self, most: Spending, used: Spending | None) -> None:
        """The call has ended; None where no answer came."""
        self.reserved = self.reserved.plus(most, -1)
        if used is not None:
            self.spent = self.spent.plus(used)
