"""Talks to OpenAI-compatible servers over aiohttp: one session, pooled connections, replies whole or in pieces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import aiohttp
import orjson

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.errors import ProviderError
from bqbuild.core.records import ChatReply, ChatRequest, Constraint
from bqbuild.llm.base import Warn
from bqbuild.llm.chat_format import (
    error_message,
    is_about_format,
    is_about_streaming,
    rate_limit_reset,
    read_failure,
    read_refusal,
    read_reply,
    request_body,
    retry_after_seconds,
    wants_stream,
)
from bqbuild.llm.endpoints import ELSEWHERE, Endpoint, Endpoints
from bqbuild.llm.redaction import Redactor
from bqbuild.llm.streamed import StreamedReply

MAX_BODY = 64 << 20
"""Bytes of a body, unpacked, beyond which it is no chat reply."""
CONNECT_SECONDS = 30.0
KEEP_ALIVE_SECONDS = 4.0
"""Less than the 5 s after which uvicorn (vLLM, SGLang) closes an idle connection: no request meets a closing one."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a server sent: a reply where it came in pieces, else a body."""

    status: int
    body: bytes = b""
    reply: ChatReply | None = None
    retry_after: float | None = None


class OpenAIProvider:
    """Sends each request to the least loaded endpoint that works. Retries are the client's, but for the first other
    endpoint that works."""

    def __init__(self, connection: ConnectionSpec, urls: Sequence[str], warn: Warn) -> None:
        self._model = connection.model
        self._spec = connection
        self._warn = warn
        self._redactor = Redactor(connection)
        self._endpoints = Endpoints(urls, connection.max_concurrency)
        self.capacity = self._capacity if len(self._endpoints) > 1 else None
        self._headers = {"Content-Type": "application/json", **connection.headers}
        if key := connection.api_key.strip():  # a key read from a file often ends in a newline
            self._headers["Authorization"] = f"Bearer {key}"
        self._refused: set[bytes] = set()
        self._can_stream = True
        self._session: aiohttp.ClientSession | None = None
        connect = min(connection.timeout, CONNECT_SECONDS)
        self._whole = aiohttp.ClientTimeout(total=connection.timeout, sock_connect=connect)
        silence = connection.read_timeout or connection.timeout
        self._pieces = aiohttp.ClientTimeout(
            total=connection.total_timeout, sock_connect=min(silence, connect), sock_read=silence
        )

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises ProviderError, without the key in it, where there is none."""
        tried: list[Endpoint] = []
        failure: ProviderError | None = None
        while (endpoint := self._endpoints.choose(asyncio.get_running_loop().time(), tried)) is not None:
            tried.append(endpoint)
            outcome = await self._ask(request, endpoint)
            if isinstance(outcome, ChatReply):
                return outcome
            failure = _sooner(failure, outcome)
            if outcome.kind not in ELSEWHERE:
                break
        assert failure is not None  # the first choice is never None
        raise self._clean(failure)

    async def close(self) -> None:
        """Close the pooled connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _capacity(self) -> int:
        return self._endpoints.capacity(asyncio.get_running_loop().time())

    async def _ask(self, request: ChatRequest, endpoint: Endpoint) -> ChatReply | ProviderError:
        """Ask one server. What it turns out not to know is remembered, and the request sent again without it."""
        clock = asyncio.get_running_loop().time
        endpoint.in_flight += 1
        started = clock()
        try:
            answer = await self._send(request, endpoint)
            outcome = self._read(answer)
        except ProviderError as error:
            outcome = error
        finally:
            endpoint.in_flight -= 1
        if self.capacity is None:  # one server: the client's own limit is its limit
            return outcome
        if isinstance(outcome, ChatReply):
            endpoint.answered(started, clock(), outcome.output_tokens)
        elif outcome.kind != "request":
            endpoint.failed(outcome, started, clock())
        return outcome

    async def _send(self, request: ChatRequest, endpoint: Endpoint) -> _Answer:
        form = _form(request.constraint)
        constrained = request.constraint is not None and form not in self._refused
        wanted = self._spec.stream
        streamed = self._can_stream and (wants_stream(request) if wanted is None else wanted)
        while True:
            data = request_body(self._model, request, constrained=constrained, streamed=streamed)
            answer = await self._post(data, endpoint, streamed=streamed)
            if answer.status == 200 or not (constrained or streamed):
                return answer
            said = error_message(answer.body)
            if constrained and is_about_format(answer.status, said):
                constrained = False
                self._learn_format(form, said)
            elif streamed and is_about_streaming(answer.status, said):
                streamed = False
                self._learn_streaming(said)
            else:
                return answer

    def _read(self, answer: _Answer) -> ChatReply | ProviderError:
        if answer.reply is not None:
            reply = answer.reply
            hidden = self._redactor.reply
            return replace(reply, text=hidden(reply.text), reasoning=hidden(reply.reasoning))
        if answer.status == 200:
            return read_reply(self._redactor.body(answer.body))
        refusal = read_refusal(answer.status, self._redactor.body(answer.body))
        if refusal is not None:
            return refusal
        return read_failure(answer.status, self._redactor.excerpt(error_message(answer.body)), answer.retry_after)

    async def _post(self, data: bytes, endpoint: Endpoint, *, streamed: bool) -> _Answer:
        """What the server answers. Raises ProviderError where nothing came, or something without end."""
        session = self._session or self._open_session()
        timeout = self._pieces if streamed else self._whole
        try:
            async with session.post(
                endpoint.url, data=data, allow_redirects=False, proxy=endpoint.proxy, timeout=timeout
            ) as response:
                if response.status == 200:
                    if response.headers.get("Content-Type", "").startswith("text/event-stream"):
                        return _Answer(200, reply=await _read_stream(response))
                    return _Answer(200, await _read(response))
                retry_after = retry_after_seconds(response.headers, time.time())
                if retry_after is None and response.status == 429:
                    retry_after = rate_limit_reset(response.headers)
                return _Answer(response.status, await _read(response), retry_after=retry_after)
        except ProviderError:
            raise
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            failure = self._transport_failure(error, endpoint, streamed=streamed)
        # Raised out here so that no exception of the HTTP library, which may hold headers, hangs on to it.
        raise failure

    def _open_session(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=KEEP_ALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self._session

    def _transport_failure(self, error: BaseException, endpoint: Endpoint, *, streamed: bool) -> ProviderError:
        shown = endpoint.shown
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            seconds = min(self._spec.timeout, CONNECT_SECONDS)
            return ProviderError(f"no connection with {shown} within {seconds:g} s", kind="transport", retryable=True)
        if isinstance(error, aiohttp.SocketTimeoutError) and streamed:
            seconds = self._spec.read_timeout or self._spec.timeout
            message, hint = f"nothing came from {shown} for {seconds:g} s", "raise `read_timeout` of the connection"
            return ProviderError(message, kind="timeout", retryable=True, hint=hint)
        if isinstance(error, TimeoutError):
            seconds, key = (self._spec.total_timeout, "total_timeout") if streamed else (self._spec.timeout, "timeout")
            message, hint = f"no answer from {shown} within {seconds:g} s", f"raise `{key}` of the connection"
            return ProviderError(message, kind="timeout", retryable=True, hint=hint)
        said = self._redactor.excerpt(str(error) or type(error).__name__)
        if isinstance(error, aiohttp.ClientSSLError):
            hint = "check `base_url`, and SSL_CERT_FILE where the certificate is your own"
            return ProviderError(f"no trusted connection with {shown}: {said}", kind="setup", hint=hint)
        return ProviderError(f"no connection with {shown}: {said}", kind="transport", retryable=True)

    def _learn_format(self, form: bytes, said: str) -> None:
        """Remember that the server does not take this schema, so that it is asked once and no more."""
        if form not in self._refused:
            self._refused.add(form)
            self._warn(f"`{self._model}`: the server does not take the schema, so replies are only read: "
                       f"{self._redactor.excerpt(said, 120)}")  # fmt: skip

    def _learn_streaming(self, said: str) -> None:
        """Remember that the server does not stream, or does not count tokens where it does: cost would be unknown."""
        if self._can_stream:
            self._can_stream = False
            self._warn(f"`{self._model}`: the server does not stream with its tokens counted, so replies come whole: "
                       f"{self._redactor.excerpt(said, 120)}")  # fmt: skip

    def _clean(self, failure: ProviderError) -> ProviderError:
        return ProviderError(
            self._redactor.excerpt(failure.message),
            kind=failure.kind,
            retryable=failure.retryable,
            retry_after=failure.retry_after,
            hint=failure.hint,
            overloaded=failure.overloaded,
        )


def _sooner(before: ProviderError | None, now: ProviderError) -> ProviderError:
    """The failure of several servers: the last one's, to be repeated when the first of them wants it."""
    if before is None or before.retry_after is None or not now.retryable:
        return now
    waits = [failure.retry_after for failure in (before, now) if failure.retry_after is not None]
    now.retry_after = min(waits)
    return now


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body. Raises ProviderError for one that is longer than `MAX_BODY`, unpacked."""
    length = response.content_length
    if length is not None and length <= MAX_BODY and "Content-Encoding" not in response.headers:
        return await response.read()
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            response.close()
            raise _too_large()
    return b"".join(parts)


async def _read_stream(response: aiohttp.ClientResponse) -> ChatReply:
    """The reply that comes in pieces. Raises ProviderError where it breaks off, and what aiohttp raises."""
    pieces = StreamedReply()
    try:
        async for part in response.content.iter_any():
            pieces.feed(part)
            if pieces.size > MAX_BODY:
                raise _too_large()
    except (aiohttp.ClientError, OSError):
        if not pieces.is_whole:
            raise
    except ProviderError:
        response.close()
        raise
    return pieces.reply()


def _too_large() -> ProviderError:
    message = f"the reply is longer than {MAX_BODY >> 20} MB"
    return ProviderError(message, kind="reply", hint="no chat reply is; look at what answers at `base_url`")


def _form(constraint: Constraint | None) -> bytes:
    """What a server is remembered to have refused: the form of a constraint."""
    if constraint is None:
        return b""
    return orjson.dumps([constraint.choices, constraint.json_schema], option=orjson.OPT_SORT_KEYS)
