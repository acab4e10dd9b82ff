"""The plan as data: what would run, why, and what it can cost. `plan` prints it, programs read its JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bqbuild.core.records import NodeName
from bqbuild.plan.changes import Reason
from bqbuild.plan.rebuild import CACHED


@dataclass(frozen=True, slots=True)
class Amount:
    """A figure: exact, or a bound (`is_bound`), or unknown (`value` is None)."""

    value: float | None
    is_bound: bool = False

    def json(self) -> Any:
        """The number, `{"at_most": number}`, or null."""
        if self.value is None or not self.is_bound:
            return self.value
        return {"at_most": self.value}

    def times(self, factor: float | None, *, exactly: bool = False) -> Amount:
        """The product; a bound unless it is said to be exact."""
        if self.value is None or factor is None:
            return UNKNOWN
        return Amount(self.value * factor, self.is_bound or not exactly)


UNKNOWN = Amount(None)
NOTHING = Amount(0)


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum: a bound where one part is, unknown where one part is."""
    value: float = 0
    is_bound = False
    for amount in amounts:
        if amount.value is None:
            return UNKNOWN
        value += amount.value
        is_bound |= amount.is_bound
    return Amount(value, is_bound)


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a plan. Tokens are counts, cost is in dollars."""

    name: NodeName
    kind: str
    action: str
    reasons: tuple[Reason, ...]
    rows: Amount = UNKNOWN
    new_calls: Amount = NOTHING
    cached_calls: Amount = NOTHING
    input_tokens: Amount = NOTHING
    output_tokens: Amount = NOTHING
    cost: Amount = NOTHING

    def json(self) -> dict[str, Any]:
        """The form that `plan --json` prints."""
        return {
            "name": self.name,
            "kind": self.kind,
            "action": self.action,
            "reasons": [
                {
                    "code": reason.code,
                    "message": reason.message,
                    "file": reason.where.file if reason.where else None,
                    "line": (reason.where.line or None) if reason.where else None,
                }
                for reason in self.reasons
            ],
            "rows": self.rows.json(),
            **_money(self.new_calls, self.cached_calls, self.input_tokens, self.output_tokens, self.cost),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps in the order of the graph."""

    environment: str
    steps: Sequence[Step] = field(default_factory=tuple)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return all(step.action == CACHED for step in self.steps)

    def sums(self) -> tuple[Amount, Amount, Amount, Amount, Amount]:
        """New calls, cached calls, input tokens, output tokens and cost of all steps together."""
        return (
            total(step.new_calls for step in self.steps),
            total(step.cached_calls for step in self.steps),
            total(step.input_tokens for step in self.steps),
            total(step.output_tokens for step in self.steps),
            total(step.cost for step in self.steps),
        )

    def totals(self) -> dict[str, Any]:
        """Sums over all steps, and how many steps have which action."""
        actions = [step.action for step in self.steps]
        return {
            "nodes": {action: actions.count(action) for action in ("build", "maybe", "cached")},
            **_money(*self.sums()),
        }

    def json(self) -> dict[str, Any]:
        """The form that `plan --json` prints and `plan.json` holds."""
        return {
            "environment": self.environment,
            "nodes": [step.json() for step in self.steps],
            "totals": self.totals(),
        }


def _money(new: Amount, cached: Amount, input_tokens: Amount, output_tokens: Amount, cost: Amount) -> dict[str, Any]:
    return {
        "calls": {"new": new.json(), "cached": cached.json()},
        "tokens": {"input": input_tokens.json(), "output": output_tokens.json()},
        "cost": cost.json(),
    }
