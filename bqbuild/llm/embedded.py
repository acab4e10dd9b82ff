"""The provider `embedded`: a local model in this process, so that a fresh machine needs no key and no server.

Connections that name the same weights share one worker thread, which owns the model and runs all their requests as one
continuous batch. Importing this module imports no torch: the worker loads the engine at its first request.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import queue
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakValueDictionary

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.errors import BqError, ProviderError
from bqbuild.core.records import ChatReply, ChatRequest
from bqbuild.llm.base import Provider, Warn
from bqbuild.llm.weights import resolve_weights, weights_identity

GATHER_SECONDS = 0.02
"""An idle worker waits this long for the next request before it starts: requests come in bursts."""

FAILURES = (BqError, ImportError, OSError, ValueError, TypeError, LookupError, RuntimeError, MemoryError)
"""What may end a worker: a model that can't be loaded, or memory that is not there."""


class EmbeddedKind:
    """How `provider: embedded` is identified and opened."""

    def identity(self, connection: ConnectionSpec) -> Mapping[str, Any]:
        """Digests of weights, tokenizer and chat template, never a path or a name; and `context` where it is set,

        because what it cuts off is not asked. Raises ProjectError where the weights are not here.
        """
        identity: dict[str, Any] = {"provider": "embedded"}
        identity |= weights_identity(connection.model, revision=connection.revision)
        if connection.context is not None:
            identity["context"] = connection.context
        return identity

    def constrains(self, connection: ConnectionSpec) -> bool:
        """Small models need their schema: it is sent unless the connection says no."""
        return connection.constrain is not False

    def open(self, connection: ConnectionSpec, warn: Warn) -> Provider:
        """A provider whose model is loaded at the first request. Raises ProjectError where the weights are not here."""
        resolve_weights(connection.model, revision=connection.revision)
        return EmbeddedProvider(connection, warn)


class EmbeddedProvider:
    """Answers from a local model. A reply depends on the request alone, up to the noise of float arithmetic:

    every draw is seeded by a digest of the request, but sums over another batch may differ in their last bits.
    """

    def __init__(self, connection: ConnectionSpec, warn: Warn) -> None:
        self._warn = warn
        self._worker = _worker_for(connection)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises ProviderError where the model can't be loaded or the request can't be run."""
        return await asyncio.wrap_future(self._worker.ask(request, self._warn))

    async def close(self) -> None:
        """Leave the worker; the last one to leave stops it, and requests still open get a ProviderError."""
        self._worker.leave()
        while not self._worker.wanted and self._worker.alive:
            await asyncio.sleep(0.005)


class Session(Protocol):
    """What the worker asks of the engine: see `bqbuild.llm.local.session`."""

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""

    def start(self, request: ChatRequest, warn: Warn) -> object:
        """Queue a request; its ticket. Raises ProviderError for a request that can't be run."""

    def step(self) -> list[tuple[object, ChatReply]]:
        """Go on by one forward pass; the tickets and replies of what has ended."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request on its way to the worker, and where its reply is awaited."""

    request: ChatRequest
    warn: Warn
    reply: Future[ChatReply]


class _Worker:
    """The thread that owns one loaded model, and the queue in front of it."""

    def __init__(self, connection: ConnectionSpec) -> None:
        self._connection = connection
        self._rows = 0
        self._users = 0
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open: set[Future[ChatReply]] = set()
        self._ended: ProviderError | None = None
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def wanted(self) -> bool:
        """Whether a connection uses it."""
        return self._users > 0

    def join(self, rows: int) -> bool:
        """Count one more connection, which wants batches of `rows`; False where the worker has ended."""
        with self._lock:
            self._users += self._ended is None
            self._rows = max(self._rows, rows)
            return self._ended is None

    def leave(self) -> None:
        """Count one connection less, and end with the last."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._asked.put(None)
            if not self.alive:
                self._end(_closed())

    def ask(self, request: ChatRequest, warn: Warn) -> Future[ChatReply]:
        """Queue a request. Raises ProviderError where the worker has ended."""
        reply: Future[ChatReply] = Future()
        with self._lock:
            if self._ended is not None:
                raise self._ended
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="bqbuild-embedded", daemon=True)
                self._thread.start()
            self._open.add(reply)
            self._asked.put(_Asked(request, warn, reply))
        return reply

    def _work(self) -> None:
        """The thread: serve until closed. Whatever ends it, nobody waits for ever."""
        end = ProviderError("the embedded model stopped unexpectedly", kind="server")
        try:
            self._serve()
            end = _closed()
        except FAILURES as error:
            end = ProviderError(f"the embedded model failed: {_first_line(error)}", kind="server")
        finally:
            self._end(end)

    def _serve(self) -> None:
        """Feed the engine with requests and deliver its replies."""
        # OpenMP reads this when torch is loaded: threads that wait for each other must sleep, not spin, or other work
        # on the same cores makes every step many times slower. See docs/decisions/embedded-model.md.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # torch and transformers take seconds to import: only where a request is really made
        local = importlib.import_module("bqbuild.llm.local.session")
        session: Session = local.open_session(self._connection, self._rows)
        waiting: dict[object, Future[ChatReply]] = {}
        while True:
            for asked in self._collect(session.busy):
                if asked is None:
                    return
                try:
                    waiting[session.start(asked.request, asked.warn)] = asked.reply
                except ProviderError as error:
                    self._settle(asked.reply, error)
            for ticket, reply in session.step():
                self._settle(waiting.pop(ticket), reply)

    def _collect(self, busy: bool) -> list[_Asked | None]:
        """The requests that have come; an idle worker waits for the first, and a moment for those that follow it."""
        collected = [] if busy else [self._asked.get()]
        patience = time.monotonic() + 10 * GATHER_SECONDS
        while collected[-1:] != [None]:
            try:
                wait = 0.0 if busy else min(GATHER_SECONDS, max(0.0, patience - time.monotonic()))
                collected.append(self._asked.get(timeout=wait) if wait else self._asked.get_nowait())
            except queue.Empty:
                break
        return collected

    def _settle(self, future: Future[ChatReply], result: ChatReply | ProviderError) -> None:
        """Hand over a reply or an error, unless nobody waits for it any more."""
        with self._lock:
            self._open.discard(future)
        if not future.set_running_or_notify_cancel():
            return
        if isinstance(result, ProviderError):
            future.set_exception(result)
        else:
            future.set_result(result)

    def _end(self, error: ProviderError) -> None:
        """No more replies: fail what is open and what will be asked."""
        with self._lock:
            self._ended = error
            left = list(self._open)
        for future in left:
            self._settle(future, error)


_WORKERS: WeakValueDictionary[tuple[str, int | None, int | None], _Worker] = WeakValueDictionary()
"""The one piece of module state: five connections to one model (annotator, judge, …) must not load it five times, and

providers are opened one connection at a time. It holds nothing alive: workers belong to the providers that use them.
"""
_WORKERS_LOCK = threading.Lock()


def _worker_for(connection: ConnectionSpec) -> _Worker:
    """The worker of this connection's weights, joined; a new one where none is running."""
    folder = resolve_weights(connection.model, revision=connection.revision)
    key = (str(folder), connection.context, connection.threads)
    with _WORKERS_LOCK:
        worker = _WORKERS.get(key)
        if worker is None or not worker.join(connection.batch_size):
            worker = _WORKERS[key] = _Worker(connection)
            worker.join(connection.batch_size)
        return worker


def _closed() -> ProviderError:
    return ProviderError("the embedded model was closed", kind="transport")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
