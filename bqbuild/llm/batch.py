"""Calls by a provider's Batch API: gathered, sent many together, and recorded under the keys that they have online.

call ─ gather ─ plan, under a lease ─┬─ recorded meanwhile: answered
  (until no call comes for a while   ├─ in a batch of another run, or of one that died: that one is waited for
   or the batch is full)             └─ the rest: a batch, written down before it is sent
batch, under its own lease ─ upload ─ create ─ look until it has ended ─ record every answer ─ forget it
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

from bqbuild.config.specs import ConnectionSpec, PriceSpec
from bqbuild.core.batches import BatchBook
from bqbuild.core.errors import BqError, ProviderError
from bqbuild.core.hashing import digest
from bqbuild.core.records import BatchRecord, CallKey, CallRecord, ChatReply, ChatRequest, Constraint
from bqbuild.llm.base import Tell, Warn
from bqbuild.llm.batch_courier import Courier, NotSent
from bqbuild.llm.batch_format import Problem, RemoteBatch, cancelled, request_line
from bqbuild.llm.batch_http import BatchApi, Gone
from bqbuild.llm.chat_format import is_about_format
from bqbuild.llm.connection import Pace
from bqbuild.llm.usage import Usage

TICKS = 4
"""A quiet while is waited for in so many parts: a program that was busy all the while has not listened."""
WAITING_THREADS = 64


class CallLog(Protocol):
    """The part of a store's call log that batches need."""

    def find(self, keys: Sequence[CallKey], *, repay: bool = False) -> dict[CallKey, CallRecord]:
        """The recorded calls among `keys`."""

    async def append(self, record: CallRecord) -> None:
        """Record a call; returns when it is durable."""


_Failures = dict[CallKey, ProviderError]


@dataclass(slots=True)
class _Waiting:
    """A call that somebody waits for. `token` is the batch that it went into, empty while it is gathered; an answer of
    an epoch before `since` is not what is waited for."""

    request: ChatRequest
    future: asyncio.Future[CallRecord]
    token: str = ""
    since: int = 0


@dataclass(slots=True)
class _Plan:
    """What planning came to: answers that are there, calls whose answers are there and asked for again, batches to look
    after with their keys and what is wanted of them, and the new one's lease."""

    recorded: dict[CallKey, CallRecord]
    renewed: frozenset[CallKey]
    batches: dict[str, frozenset[CallKey]] = field(default_factory=dict)
    wanted: dict[str, frozenset[CallKey]] = field(default_factory=dict)
    new: str = ""
    lease: ExitStack = field(default_factory=ExitStack)


@dataclass(slots=True)
class Batcher:
    """The batches of one connection. Belongs to one event loop."""

    name: str
    spec: ConnectionSpec
    url: str
    identity: Mapping[str, Any]
    log: CallLog
    book: BatchBook
    warn: Warn
    tell: Tell
    pace: Pace
    clock: Callable[[], float]
    cost_of: Callable[[PriceSpec, ChatReply], float]
    epoch: int = 0
    since: int = 0
    repay: bool = False
    usage: Usage = field(default_factory=Usage)
    _api: BatchApi = field(init=False)
    _courier: Courier = field(init=False)
    _slots: asyncio.Semaphore = field(init=False)
    _planning: asyncio.Lock = field(default_factory=asyncio.Lock)
    _threads: ThreadPoolExecutor = field(init=False)
    _waiting: dict[CallKey, _Waiting] = field(default_factory=dict)
    _gathered: dict[CallKey, ChatRequest] = field(default_factory=dict)
    _bytes: int = 0
    _arrivals: int = 0
    _timer: asyncio.Task[None] | None = None
    _keys: dict[str, frozenset[CallKey]] = field(default_factory=dict)
    _tended: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _at_provider: dict[str, int] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _refused: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._api = BatchApi(self.spec, self.url)
        self._courier = Courier(self.name, self.spec, self._api, self.book, self.pace, self.tell, self._line)
        self._slots = asyncio.Semaphore(self.spec.batch.max_batches)
        self._threads = ThreadPoolExecutor(WAITING_THREADS, thread_name_prefix="batch-lease")

    async def call(self, key: CallKey, request: ChatRequest) -> CallRecord:
        """The record of the call, once it is durable; a failure worth repeating goes into a following batch.

        Raises ProviderError where no answer came, StoreError where the answer could not be recorded.
        """
        attempt = 0
        while True:
            try:
                return await self._answer_to(key, request)
            except NotSent:
                continue
            except ProviderError as error:
                if not error.retryable or attempt >= self.spec.retries:
                    self.usage.failed += 1
                    raise
                attempt += 1
                self.usage.retries += 1

    async def close(self) -> None:
        """Stop waiting. What is at the provider stays there, and the next run finds it; what has ended is collected."""
        if ended := [self._tended[token] for token in self._ended]:
            await asyncio.wait(ended)
        tasks = [*self._tasks, *([self._timer] if self._timer else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._at_provider:
            batches, calls = len(self._at_provider), sum(self._at_provider.values())
            batch = "a batch" if batches == 1 else f"{batches} batches"
            self.warn(
                f"connection `{self.name}`: {batch} of {calls:,} call{'' if calls == 1 else 's'} "
                f"{'goes' if batches == 1 else 'go'} on at the provider; the next `bqbuild run` collects the answers"
            )
        self._threads.shutdown(wait=False)
        await self._api.close()

    async def _answer_to(self, key: CallKey, request: ChatRequest) -> CallRecord:
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        self._waiting[key] = waiting
        try:
            self._gather(key, request)
            return await waiting.future
        finally:
            del self._waiting[key]

    def _gather(self, key: CallKey, request: ChatRequest) -> None:
        limits = self.spec.batch
        size = len(self._line(key, request))
        if size > limits.max_bytes:
            message = f"the request has {size:,} bytes, more than a batch may have"
            raise ProviderError(message, kind="request", hint="raise `batch.max_bytes` if the provider takes more")
        if self._bytes + size > limits.max_bytes:
            self._dispatch()
        self._gathered[key] = request
        self._bytes += size
        self._arrivals += 1
        if len(self._gathered) >= limits.max_requests:
            self._dispatch()
        elif self._timer is None:
            self._timer = asyncio.ensure_future(self._wait_for_quiet())

    async def _wait_for_quiet(self) -> None:
        """Send what is gathered when nothing has come for a while."""
        while self._gathered:
            seen = self._arrivals
            for _ in range(TICKS):
                await asyncio.sleep(self.spec.batch.quiet / TICKS)
            if seen == self._arrivals:
                self._dispatch()
        self._timer = None

    def _dispatch(self) -> None:
        gathered, self._gathered, self._bytes = self._gathered, {}, 0
        if gathered:
            self._start(self._send(gathered), gathered, "")

    async def _send(self, gathered: Mapping[CallKey, ChatRequest]) -> None:
        try:
            async with self._planning:
                plan = await asyncio.to_thread(self._plan, gathered)
        except BqError as error:
            self._fail(gathered, error, "")
            return
        for key, record in plan.recorded.items():
            self._answer(key, record, "")
        for token, keys in plan.batches.items():
            for key in plan.wanted[token] & self._waiting.keys():
                self._waiting[key].token = token
                self._waiting[key].since = self.since if key in plan.renewed else 0
            self._look_after(token, keys, plan.lease if token == plan.new else None)

    def _plan(self, gathered: Mapping[CallKey, ChatRequest]) -> _Plan:
        """Decide, alone in the store, which calls go into a new batch. Open batches are looked at before the log: one
        that is done with in between has its answers there."""
        with ExitStack() as leases, self.book.hold():
            records = [record for record in self.book.open() if dict(record.identity) == dict(self.identity)]
            found = self.log.find(list(gathered), repay=self.repay)
            renewed = frozenset(key for key, answer in found.items() if answer.epoch < self.since)
            plan = _Plan({key: answer for key, answer in found.items() if key not in renewed}, renewed)
            left = {key: request for key, request in gathered.items() if key not in plan.recorded}
            for record in records:
                keys = self._keys.get(record.token) or frozenset(self.book.keys(record.token))
                wanted = keys & left.keys() if record.epoch >= self.since else (keys & left.keys()) - renewed
                if wanted or record.place == self._api.place:
                    plan.batches[record.token], plan.wanted[record.token] = keys, wanted
                    left = {key: request for key, request in left.items() if key not in wanted}
            if left:
                plan.new = digest(["batch", list(left), uuid4().hex])
                leases.enter_context(self.book.hold(plan.new))
                self.book.plan(self._new_record(plan.new, len(left)), left.items())
                plan.batches[plan.new] = plan.wanted[plan.new] = frozenset(left)
            plan.lease = leases.pop_all()
            return plan

    def _new_record(self, token: str, requests: int) -> BatchRecord:
        place, now = self._api.place, self.clock()
        return BatchRecord(token, self.name, self.identity, place, requests, created=now, epoch=self.epoch)

    def _look_after(self, token: str, keys: frozenset[CallKey], lease: ExitStack | None) -> None:
        if token not in self._tended:
            self._keys[token] = keys
            self._tended[token] = self._start(self._tend(token, lease), keys, token)

    async def _tend(self, token: str, lease: ExitStack | None) -> None:
        """Bring one batch to its end, then answer whoever still waits for a call of it."""
        failure: BqError | None = None
        failures: _Failures = {}
        try:
            is_new = lease is not None
            with lease or await self._wait_for_lease(token):
                async with self._slots:
                    failure = await self._carry(token, failures, is_new=is_new)
        except BqError as error:
            failure = error
        self._at_provider.pop(token, None)
        self._ended.discard(token)
        del self._tended[token]
        # only now: a call that goes again at once must not find this batch still open
        await self._settle(token, failures, failure)

    async def _wait_for_lease(self, token: str) -> ExitStack:
        lease = ExitStack()
        hold = self.book.hold(token)
        await asyncio.get_running_loop().run_in_executor(self._threads, lease.enter_context, hold)
        return lease

    async def _carry(self, token: str, failures: _Failures, *, is_new: bool) -> BqError | None:
        """All steps of a batch. Notes the failures of calls; returns that of the calls without a word on them."""
        record = await asyncio.to_thread(self.book.find, token)
        if record is None:  # whoever held the lease before has recorded all of it
            return None
        try:
            record = await self._courier.send(record, is_new=is_new, is_wanted=lambda: self._is_wanted(token))
        except ProviderError as error:
            if error.kind == "request":  # the provider has said no, so there is nothing of ours there
                await asyncio.to_thread(self.book.remove, token)
            self._courier.over(record, "not sent")
            raise
        self._at_provider[token] = record.requests
        self.usage.requests += record.requests if is_new else 0
        try:
            remote = await self._courier.wait(record)
            self._ended.add(token)
            await self._collect(record, remote, failures)
            failure = await self._left_over(record, remote, failures)
        except Gone as error:
            self.warn(
                f"connection `{self.name}`: the provider no longer has batch {record.batch}; its calls are new again"
            )
            failure = ProviderError(error.message, kind="server", retryable=True)
        finally:
            self._courier.over(record, "ended")
        del self._at_provider[token]
        await asyncio.to_thread(self.book.remove, token)
        return failure

    async def _collect(self, record: BatchRecord, remote: RemoteBatch, failures: _Failures) -> None:
        """Record every answer, then hand it to whoever waits."""
        requests = await self._unrecorded(record)
        async for outcomes in self._courier.outcomes(record, remote):
            replies: list[CallRecord] = []
            for key, outcome in outcomes:
                request = requests.pop(key, None)
                if request is None:  # not ours, recorded already, or told twice: the first one counts
                    continue
                if isinstance(outcome, ProviderError):
                    failures[key] = self._weigh(request, outcome)
                else:
                    replies.append(self._record(key, request, outcome, record.epoch, remote.seconds))
            await asyncio.gather(*(self.log.append(reply) for reply in replies))
            for reply in replies:
                self._answer(reply.key, reply, record.token)

    async def _unrecorded(self, record: BatchRecord) -> dict[CallKey, ChatRequest]:
        """The requests of a batch that have no answer in the log: a process that died may have recorded some."""
        keys = list(self._keys[record.token])
        answers = await asyncio.to_thread(self.log.find, keys, repay=self.repay)
        found = {key: answer for key, answer in answers.items() if answer.epoch >= record.epoch}
        for key, answer in found.items():
            self._answer(key, answer, record.token)
        known = {key: self._waiting[key].request for key in keys if key in self._waiting and key not in found}
        if len(known) + len(found) < len(keys):
            known |= dict(await asyncio.to_thread(lambda: list(self.book.calls(record.token))))
        return {key: request for key, request in known.items() if key not in found}

    async def _left_over(self, record: BatchRecord, remote: RemoteBatch, failures: _Failures) -> BqError:
        """Why there is no line for a call, by how its batch ended."""
        if remote.status == "failed":
            return await self._refusal(record, remote.problems, failures)
        if remote.status == "cancelled":
            return cancelled()
        if remote.status == "expired":
            message = f"the batch expired before this request was answered ({remote.done} of {remote.total} were)"
            return ProviderError(message, kind="timeout", retryable=True)
        return ProviderError("the batch ended without a word on this request", kind="reply", retryable=True)

    async def _refusal(self, record: BatchRecord, problems: Iterable[Problem], failures: _Failures) -> BqError:
        """The provider took none of the requests: those that it names are at fault, and the others go again."""
        keys = await asyncio.to_thread(self.book.keys, record.token)
        named = {problem.line: problem for problem in problems if problem.line and problem.line <= len(keys)}
        for line, problem in named.items():
            said = self._api.redactor.excerpt(problem.message)
            failures[keys[line - 1]] = ProviderError(f"the provider refused the request: {said}", kind="request")
        if named:
            return ProviderError("another request of the batch was refused", kind="server", retryable=True)
        said = self._api.redactor.excerpt("; ".join(problem.message for problem in problems)) or "it did not say why"
        if any("limit" in problem.code for problem in problems):
            return await self._wait_for_room(said, record.token)
        return ProviderError(f"the provider refused the batch: {said}", kind="request")

    async def _wait_for_room(self, said: str, token: str) -> BqError:
        """Providers limit what may wait there: room comes when another batch has ended, if there is another."""
        others = [self._tended[other] for other in self._at_provider if other != token and other in self._tended]
        if others:
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        hint = "lower `batch.max_requests` or `batch.max_batches`, then run again"
        return ProviderError(f"the provider has no room: {said}", kind="rate_limit", retryable=bool(others), hint=hint)

    async def _settle(self, token: str, failures: _Failures, failure: BqError | None) -> None:
        """Whoever still waits for a call of a batch that is over gets its answer from the log, or the failure."""
        keys = [key for key in self._keys.pop(token) if self._waits(key, token)]
        if not keys:
            return
        try:
            found = await asyncio.to_thread(self.log.find, keys, repay=self.repay)
        except BqError as error:
            found, failures, failure = {}, {}, error
        lost = ProviderError("the batch ended without an answer to this request", kind="server", retryable=True)
        for key in keys:
            if key in found and found[key].epoch >= self._waiting[key].since:
                self._answer(key, found[key], token)
            else:
                self._fail([key], failures.get(key) or failure or lost, token)

    def _is_wanted(self, token: str) -> bool:
        return all(self._waits(key, token) for key in self._keys[token])

    def _record(self, key: CallKey, request: ChatRequest, reply: ChatReply, epoch: int, seconds: float) -> CallRecord:
        cost = self.cost_of(self.spec.rates, reply)
        self.usage.answered += 1
        self.usage.input_tokens += reply.input_tokens
        self.usage.output_tokens += reply.output_tokens
        self.usage.cost += cost
        now = round(self.clock(), 3)
        return CallRecord(key, self.name, self.identity, request, reply, cost, seconds, created=now, epoch=epoch)

    def _line(self, key: CallKey, request: ChatRequest) -> bytes:
        constrained = request.constraint is not None and _form(request.constraint) not in self._refused
        return request_line(key, self.spec.model, request, constrained=constrained)

    def _weigh(self, request: ChatRequest | None, failure: ProviderError) -> ProviderError:
        """A refused schema is worth another try: the request goes again without it."""
        constraint = request.constraint if request is not None else None
        if constraint is None or not is_about_format(400, failure.message):
            return failure
        if _form(constraint) not in self._refused:
            self._refused.add(_form(constraint))
            self.warn(f"`{self.spec.model}`: the provider does not take the schema, so replies are only read")
        return ProviderError(failure.message, kind=failure.kind, retryable=True)

    def _answer(self, key: CallKey, record: CallRecord, token: str) -> None:
        if self._waits(key, token):
            self._waiting[key].future.set_result(record)

    def _fail(self, keys: Iterable[CallKey], error: BqError, token: str) -> None:
        """Tell those who wait for the batch; a call that is being gathered again meanwhile is none of them."""
        for key in keys:
            if self._waits(key, token):
                self._waiting[key].future.set_exception(error)

    def _waits(self, key: CallKey, token: str) -> bool:
        waiting = self._waiting.get(key)
        return waiting is not None and waiting.token == token and not waiting.future.done()

    def _start(self, work: Coroutine[Any, Any, None], keys: Iterable[CallKey], token: str) -> asyncio.Task[None]:
        """Do it beside everything else. If our own code breaks, those who wait must hear of it."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                said = f"a batch broke off: {type(error).__name__}: {error}"
                self._fail(keys, ProviderError(said, kind="server"), token)

        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(ended)
        return task


def _form(constraint: Constraint) -> str:
    """What a provider is remembered to have refused."""
    return digest([list(constraint.choices), constraint.json_schema])
