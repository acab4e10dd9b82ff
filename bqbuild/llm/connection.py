"""One connection at work: limits, retries, and the moment when it is given up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.errors import ProviderError, StoreError
from bqbuild.core.records import ChatReply, ChatRequest
from bqbuild.llm.base import Provider, Warn
from bqbuild.llm.figures import Meter
from bqbuild.llm.limits import Limiter
from bqbuild.llm.rates import Rates
from bqbuild.llm.redaction import Redactor
from bqbuild.llm.usage import Usage


class ConnectionDown(ProviderError):
    """The connection was given up: nothing more is sent over it in this run."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient a client is; times in seconds.

    Before it sends again, a call waits a random time between nothing and a bound that doubles from `first_wait` to
    `longest_wait` ("full jitter": Brooker, Exponential Backoff And Jitter, 2015). A server's own Retry-After is kept up
    to `longest_pause`. A connection with `failures` in a row and no success for `silence` is given up.
    """

    first_wait: float = 0.5
    longest_wait: float = 30.0
    longest_pause: float = 120.0
    failures: int = 20
    silence: float = 30.0


@dataclass(slots=True)
class Connection:
    """Asks one LLM until it answers or there is no point in asking.

    `room` says for how many more answers there is room, and raises StoreError where there is none: then none is sent.
    """

    name: str
    spec: ConnectionSpec
    provider: Provider
    warn: Warn
    pace: Pace = field(default_factory=Pace)
    dice: random.Random = field(default_factory=random.Random)
    room: Callable[[], int] | None = None
    usage: Usage = field(default_factory=Usage)
    limiter: Limiter = field(init=False)
    meter: Meter = field(init=False)
    _redactor: Redactor = field(init=False)
    _rates: Rates = field(init=False)
    _row_of_failures: int = 0
    _failing_since: float = 0.0
    _down: ProviderError | None = None
    _served_by: tuple[str, str] | None = None
    _served_before: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        spec = self.spec
        self._rates = Rates(spec.requests_per_minute, spec.tokens_per_minute)
        has_rates = spec.requests_per_minute is not None or spec.tokens_per_minute is not None
        self.limiter = Limiter(spec.max_concurrency, self._rates if has_rates else None, self._capacity)
        self._redactor = Redactor(self.spec)
        self.meter = Meter(self.name)

    def _capacity(self) -> int:
        """How many requests may be in flight, as far as the servers go and answers can be kept; one at the least."""
        # a provider with several servers knows how much they take together
        capacity = getattr(self.provider, "capacity", None)
        most: int = self.spec.max_concurrency if capacity is None else capacity()
        if self.room is None:
            return most
        try:
            return max(1, min(most, self.limiter.in_flight + self.room()))
        except StoreError:
            return 1

    async def ask(self, request: ChatRequest, depth: int = 0) -> tuple[ChatReply, float]:
        """The reply and the seconds it took, retries and waits aside. Raises ProviderError, ConnectionDown among them.

        Loop: wait for a slot, send, give the slot back; after a failure worth repeating wait and go round, ahead of
        requests that were never sent. Those go by `depth`, the greatest first. No attempt begins later than
        `total_timeout` after the first.
        """
        attempt = pauses = 0
        until = float("inf")
        while True:
            outcome, started = await self._attempt(request, depth, ahead=attempt + pauses > 0)
            if not isinstance(outcome, ProviderError):
                return outcome, asyncio.get_running_loop().time() - started
            until = min(until, started + self.spec.total_timeout)
            if outcome.kind == "rate_limit" and outcome.retry_after is not None and pauses < 3 * self.spec.retries:
                pauses += 1  # the server promised to be back: that costs no attempt, though not for ever
            elif outcome.retryable and attempt < self.spec.retries:
                attempt += 1
            else:
                self.usage.failed += 1
                raise self.down() or outcome
            wait = self._pause(outcome, attempt)
            if asyncio.get_running_loop().time() + wait > until:
                self.usage.failed += 1
                raise self.down() or _too_long(outcome, self.spec.total_timeout)
            self.usage.retries += 1
            await self.limiter.sleep(wait)

    def down(self) -> ConnectionDown | None:
        """Why the connection was given up, as a new error each time; None while it is up."""
        cause = self._down
        if cause is None:
            return None
        return ConnectionDown(
            f"connection `{self.name}` is given up: {cause.message}", kind=cause.kind, hint=cause.hint
        )

    async def _attempt(
        self, request: ChatRequest, depth: int, *, ahead: bool
    ) -> tuple[ChatReply | ProviderError, float]:
        """What came of sending it once, and when it was sent."""
        limiter, clock = self.limiter, asyncio.get_running_loop().time
        tokens = self._rates.estimate(request)
        await limiter.acquire(ahead=ahead, depth=depth, tokens=tokens)
        try:
            if (down := self.down()) is not None:
                self.usage.failed += 1
                raise down
            if self.room is not None:
                self.room()
            started = clock()
            self.usage.requests += 1
            outcome = await self._chat(request)
        finally:
            limiter.release()
        if isinstance(outcome, ChatReply):
            self._rates.answered(request, tokens, outcome)
            self._note_success(outcome, started, clock())
        else:
            if outcome.kind in ("rate_limit", "auth", "setup", "request"):
                self._rates.refused(tokens)
            self._note_failure(outcome, started, clock())
        return outcome, started

    async def _chat(self, request: ChatRequest) -> ChatReply | ProviderError:
        try:
            return await self.provider.chat(request)
        except ProviderError as error:
            return error
        except Exception as error:  # noqa: BLE001  a provider from outside may raise anything: that ends a row, not the run
            said = self._redactor.excerpt(f"{type(error).__name__}: {error}")
            return ProviderError(f"the provider `{self.spec.provider}` failed: {said}", kind="server")

    def _pause(self, failure: ProviderError, attempt: int) -> float:
        """Seconds to wait before the next attempt; where the server asked for a pause, it is everybody's."""
        pace = self.pace
        if failure.retry_after is None:
            return self.dice.uniform(0, min(pace.first_wait * 2 ** max(attempt - 1, 0), pace.longest_wait))
        pause = min(failure.retry_after, pace.longest_pause)
        if failure.kind == "rate_limit":
            self.limiter.pause(pause)  # nobody else should run into the same wall meanwhile
        # Spread the return, or all would knock in the same instant.
        return pause + self.dice.uniform(0, min(pause, 1.0) / 4)

    def _note_success(self, reply: ChatReply, started: float, now: float) -> None:
        self._row_of_failures = 0
        self.usage.answered += 1
        self.meter.note(now - started)
        self.limiter.throttle.succeeded(started, now, reply.output_tokens)
        served_by = (reply.model, reply.fingerprint)
        if served_by != self._served_by:
            self._note_server(served_by)

    def _note_server(self, served_by: tuple[str, str]) -> None:
        """Warn of a new model or fingerprint behind the same name; servers that take turns are named once each."""
        before, self._served_by = self._served_by, served_by
        if before is not None and served_by not in self._served_before and len(self._served_before) < 8:
            self.warn(
                f"connection `{self.name}`: replies now come from {_shown(served_by)}, before from {_shown(before)}"
            )
        self._served_before.add(served_by)

    def _note_failure(self, failure: ProviderError, started: float, now: float) -> None:
        if self._row_of_failures == 0:
            self._failing_since = started
        self._row_of_failures += 1
        kind = "rate_limit" if failure.overloaded else failure.kind
        self.limiter.throttle.failed(kind, started, now, self.limiter.in_flight)
        hopeless = failure.kind == "auth" or (failure.kind == "setup" and not self.usage.answered)
        silent = self._row_of_failures >= self.pace.failures and now - self._failing_since >= self.pace.silence
        if self._down is None and (hopeless or silent):
            self._down = failure if hopeless else _given_up(failure, self._row_of_failures, now - self._failing_since)
            self.limiter.close()


def _given_up(failure: ProviderError, failures: int, seconds: float) -> ProviderError:
    message = f"{failures} failures in a row and no success for {seconds:.0f} s; the last one: {failure.message}"
    return ProviderError(message, kind=failure.kind, hint=failure.hint or "run again when the server is back")


def _too_long(failure: ProviderError, seconds: float) -> ProviderError:
    hint = failure.hint or "raise `total_timeout` of the connection to go on for longer"
    message = f"no answer within {seconds:g} s in all; the last failure: {failure.message}"
    return ProviderError(message, kind=failure.kind, hint=hint)


def _shown(served_by: tuple[str, str]) -> str:
    model, fingerprint = served_by
    return f"`{model or 'unnamed'}`{f' ({fingerprint})' if fingerprint else ''}"


def copy_of(usage: Usage) -> Usage:
    """The figures as they are now."""
    return replace(usage)
