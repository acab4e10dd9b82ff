"""Where asks are answered: from the call log, many keys at a time, else by the client.

Identical requests in flight are sent once. A budget is reserved before a call is sent, so it is never crossed.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bqbuild.config.specs import BudgetSpec, ConnectionSpec
from bqbuild.core.errors import BuildError, ProviderError
from bqbuild.core.events import Counts
from bqbuild.core.records import CallKey, CallRecord, ChatRequest, NodeName
from bqbuild.llm.client import Client
from bqbuild.nodes.base import Ask
from bqbuild.plan.bounds import most_cost, most_input_tokens, most_output_tokens
from bqbuild.run.purse import Purse, Spending
from bqbuild.run.renewal import Renewal
from bqbuild.store.base import CallLog

UNLIMITED = 4096
"""Tokens that a reply is taken to have at most where its request sets no limit and none was longer than half of it."""


class BudgetSpent(BuildError):
    """A call was not sent because the node's budget does not cover it."""


@dataclass(slots=True)
class Tally:
    """What one node has bought, found and missed so far.

    `kept` counts answers that were to be renewed and are the earlier ones; `is_told` is whether its tables name every
    call that it used; `depth` is how far down its chain the node is.
    """

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
    keys: bytearray = field(default_factory=bytearray)
    """The keys of all calls that the node used, 16 bytes each."""
    kept: int = 0
    is_told: bool = True
    depth: int = 0

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

    def __init__(
        self,
        client: Client,
        log: CallLog,
        connection: Callable[[str], ConnectionSpec],
        renewal: Renewal | None = None,
        *,
        repay: bool = False,
        purse: Purse | None = None,
    ) -> None:
        self._client = client
        self._log = log
        self._connection = connection
        self._repay = repay
        self._in_flight: dict[CallKey, asyncio.Task[CallRecord]] = {}
        self._renewal = renewal
        self._renews_all = False
        self._purse = purse or Purse()

    def of(self, node: NodeName) -> Desk:
        """The desk as that node sees it: where its calls are renewed, earlier answers are not there."""
        if self._renewal is None or node not in self._renewal.nodes:
            return self
        desk = copy.copy(self)  # what is in flight is shared
        desk._renews_all = True
        return desk

    def key(self, ask: Ask) -> CallKey:
        """The key of a call."""
        return self._client.key(ask.llm, ask.request)

    def look_up(self, keys: Sequence[CallKey]) -> dict[CallKey, CallRecord]:
        """The calls among `keys` that were answered before. Raises DamagedError where their records are damaged."""
        wanted = list(dict.fromkeys(keys))
        found = self._log.find(wanted, repay=self._repay)
        if self._renewal is None:
            return found
        return self._renewal.counted(found, wanted, all_of_them=self._renews_all)

    def count_kept(self, records: Iterable[CallRecord]) -> int:
        """How many of these answers were to be renewed and were not."""
        renewal = self._renewal
        if renewal is None:
            return 0
        return sum(renewal.is_old(record, all_of_them=self._renews_all) for record in records)

    def send(self, ask: Ask, key: CallKey, tally: Tally, budget: BudgetSpec | None) -> asyncio.Task[CallRecord]:
        """Send a call that the log does not have; one that is under way already is shared.

        Call it in the same step of the event loop as `look_up`: nothing can come between. Raises BudgetSpent.
        """
        waiting = self._in_flight.get(key)
        if waiting is not None:
            tally.cached += 1
            return waiting
        try:
            most = self._reserve(ask.llm, ask.request, tally, budget)
        except BudgetSpent:
            earlier = self._earlier(key)
            if earlier is None:
                raise
            return asyncio.ensure_future(_just(earlier))
        task = asyncio.ensure_future(self._buy(ask, key, tally, most))
        self._in_flight[key] = task
        task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return task

    async def _buy(self, ask: Ask, key: CallKey, tally: Tally, most: Spending) -> CallRecord:
        used: Spending | None = None
        try:
            record = await self._client.call(ask.llm, key, ask.request, tally.depth)
            used = Spending(1, record.cost, record.reply.input_tokens + record.reply.output_tokens)
        except BaseException as error:
            tally.reserved_calls -= 1
            tally.failed += 1
            earlier = self._earlier(key) if isinstance(error, ProviderError) else None
            if earlier is None:
                raise
            return earlier
        finally:
            tally.reserved_cost -= most.cost
            self._purse.settle(most, used)
        tally.reserved_calls -= 1
        tally.bought(record)
        return record

    def _earlier(self, key: CallKey) -> CallRecord | None:
        """The answer that a call had before, where it was to be renewed: no new one takes nothing away."""
        if self._renewal is None:
            return None
        earlier = self._log.find([key], repay=self._repay).get(key)
        if earlier is not None:
            self._renewal.given_up.add(key)
        return earlier

    def _reserve(self, llm: str, request: ChatRequest, tally: Tally, budget: BudgetSpec | None) -> Spending:
        unlimited = max(UNLIMITED, 2 * tally.longest_reply)
        cost = most_cost(request, self._connection(llm).rates, unlimited=unlimited)
        limit = most_output_tokens(request.params)
        most = Spending(1, cost, most_input_tokens(request) + (unlimited if limit is None else limit))
        if budget is not None:
            if budget.calls is not None and tally.new + tally.reserved_calls + 1 > budget.calls:
                raise _spent(tally, f"the budget of {_calls(budget.calls)} is spent", "calls")
            if budget.cost is not None and tally.cost + tally.reserved_cost + cost > budget.cost:
                raise _spent(tally, f"one more call could cross the budget of ${budget.cost:g}", "cost")
        if refusal := self._purse.refusal(most):
            raise _stopped(tally, refusal, "`bqbuild run` goes on from here")
        self._purse.reserve(most)
        tally.reserved_calls += 1
        tally.reserved_cost += cost
        return most


async def _just(record: CallRecord) -> CallRecord:
    return record


def _spent(tally: Tally, message: str, key: str) -> BudgetSpent:
    return _stopped(tally, message, f"`bqbuild run` buys as much again; raise `budget.{key}` to buy more at once")


def _stopped(tally: Tally, message: str, hint: str) -> BudgetSpent:
    error = BudgetSpent(message, hint=hint)
    tally.stopped = tally.stopped or f"{message}; {error.hint}"
    return error


def _calls(number: int) -> str:
    return f"{number} call{'' if number == 1 else 's'}"
