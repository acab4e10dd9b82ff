"""Where asks are answered: from the call log, many keys at a time, else by the client.

Identical requests in flight are sent once. A budget is reserved before a call is sent, so it is never crossed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bqbuild.config.specs import BudgetSpec, ConnectionSpec
from bqbuild.core.errors import BuildError
from bqbuild.core.events import Counts
from bqbuild.core.records import CallKey, CallRecord, ChatRequest
from bqbuild.llm.client import Client
from bqbuild.nodes.base import Ask
from bqbuild.plan.bounds import most_cost
from bqbuild.store.base import CallLog

UNLIMITED = 4096
"""Tokens that a reply is taken to have at most where its request sets no limit and none was longer than half of it."""


class BudgetSpent(BuildError):
    """A call was not sent because the node's budget does not cover it."""


@dataclass(slots=True)
class Tally:
    """What one node has bought, found and missed so far."""

    rows: int = 0
    new: int = 0
    cached: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    reserved_calls: int = 0
    reserved_cost: float = 0.0
    longest_reply: int = 0
    stopped: str = ""

    def counts(self) -> Counts:
        """A snapshot for events and results."""
        return Counts(
            self.rows, self.new, self.cached, self.failed, self.input_tokens, self.output_tokens, round(self.cost, 9)
        )

    def bought(self, record: CallRecord) -> None:
        """A call that was sent for this node came back."""
        self.new += 1
        self.input_tokens += record.reply.input_tokens
        self.output_tokens += record.reply.output_tokens
        self.cost += record.cost
        self.longest_reply = max(self.longest_reply, record.reply.output_tokens)


class Desk:
    """Answers the asks of every node of a run."""

    def __init__(self, client: Client, log: CallLog, connection: Callable[[str], ConnectionSpec]) -> None:
        self._client = client
        self._log = log
        self._connection = connection
        self._in_flight: dict[CallKey, asyncio.Task[CallRecord]] = {}

    def key(self, ask: Ask) -> CallKey:
        """The key of a call."""
        return self._client.key(ask.llm, ask.request)

    def look_up(self, keys: Sequence[CallKey]) -> dict[CallKey, CallRecord]:
        """The calls among `keys` that were answered before."""
        return self._log.find(list(dict.fromkeys(keys)))

    def send(self, ask: Ask, key: CallKey, tally: Tally, budget: BudgetSpec | None) -> asyncio.Task[CallRecord]:
        """Send a call that the log does not have; one that is under way already is shared.

        Call it in the same step of the event loop as `look_up`: nothing can come between. Raises BudgetSpent.
        """
        waiting = self._in_flight.get(key)
        if waiting is not None:
            tally.cached += 1
            return waiting
        reserved = self._reserve(ask.llm, ask.request, tally, budget)
        task = asyncio.ensure_future(self._buy(ask, key, tally, reserved))
        self._in_flight[key] = task
        task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return task

    async def _buy(self, ask: Ask, key: CallKey, tally: Tally, reserved: float) -> CallRecord:
        try:
            record = await self._client.call(ask.llm, key, ask.request)
        except BaseException:
            tally.reserved_calls -= 1
            tally.failed += 1
            raise
        finally:
            tally.reserved_cost -= reserved
        tally.reserved_calls -= 1
        tally.bought(record)
        return record

    def _reserve(self, llm: str, request: ChatRequest, tally: Tally, budget: BudgetSpec | None) -> float:
        most = most_cost(request, self._connection(llm).price, unlimited=max(UNLIMITED, 2 * tally.longest_reply))
        if budget is not None:
            if budget.calls is not None and tally.new + tally.reserved_calls + 1 > budget.calls:
                raise _spent(tally, f"the budget of {_calls(budget.calls)} is spent", "calls")
            if budget.cost is not None and tally.cost + tally.reserved_cost + most > budget.cost:
                raise _spent(tally, f"one more call could cross the budget of ${budget.cost:g}", "cost")
        tally.reserved_calls += 1
        tally.reserved_cost += most
        return most


def _spent(tally: Tally, message: str, key: str) -> BudgetSpent:
    error = BudgetSpent(message, hint=f"`bqbuild run` buys as much again; raise `budget.{key}` to buy more at once")
    tally.stopped = tally.stopped or f"{message}; {error.hint}"
    return error


def _calls(number: int) -> str:
    return f"{number} call{'' if number == 1 else 's'}"
