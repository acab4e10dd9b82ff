"""Talks to OpenAI-compatible servers over aiohttp: one session, pooled connections, several endpoints."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from yarl import URL

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.errors import ProviderError
from bqbuild.core.records import ChatReply, ChatRequest, Constraint
from bqbuild.llm.base import Warn
from bqbuild.llm.chat_format import (
    error_message,
    is_about_format,
    read_failure,
    read_reply,
    request_body,
    retry_after_seconds,
)
from bqbuild.llm.redaction import Redactor, bare_url

MAX_BODY = 64 << 20
"""Bytes of a body beyond which it is no chat reply."""
CONNECT_SECONDS = 30.0
KEEP_ALIVE_SECONDS = 4.0
"""Less than the 5 s after which uvicorn (vLLM, SGLang) closes an idle connection: no request meets a closing one."""
REST_SECONDS = (1.0, 30.0)
"""How long an endpoint that failed is passed over, first and at most, while another one works."""


@dataclass(slots=True)
class _Endpoint:
    """One base URL and how it does. `resting_until` is in seconds of the loop's clock."""

    url: URL
    shown: str
    proxy: URL | None
    in_flight: int = 0
    failures: int = 0
    resting_until: float = 0.0
    used: int = 0


class OpenAIProvider:
    """Sends each request to the least loaded endpoint that works. Retries are the client's."""

    def __init__(self, connection: ConnectionSpec, urls: Sequence[str], warn: Warn) -> None:
        self._model = connection.model
        self._timeout = connection.timeout
        self._concurrency = connection.max_concurrency
        self._warn = warn
        self._redactor = Redactor(connection)
        self._endpoints = [_endpoint(url) for url in urls]
        self._headers = {"Content-Type": "application/json", **connection.headers}
        if key := connection.api_key.strip():  # a key read from a file often ends in a newline
            self._headers["Authorization"] = f"Bearer {key}"
        self._refused: set[bytes] = set()
        self._session: aiohttp.ClientSession | None = None

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises ProviderError, without the key in it, where there is none."""
        form = _form(request.constraint)
        constrained = request.constraint is not None and form not in self._refused
        status, body, retry_after = await self._post(request_body(self._model, request, constrained=constrained))
        if status != 200 and constrained and is_about_format(status, error_message(body)):
            self._learn(form, error_message(body))
            status, body, retry_after = await self._post(request_body(self._model, request, constrained=False))
        try:
            if status == 200:
                return read_reply(self._redactor.body(body))
            failure = read_failure(status, self._redactor.excerpt(error_message(body)), retry_after)
        except ProviderError as error:
            failure = error
        raise self._clean(failure)

    async def close(self) -> None:
        """Close the pooled connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, data: bytes) -> tuple[int, bytes, float | None]:
        """Status, body and the wait that the server asks for. Raises ProviderError where no answer came."""
        session = self._session or self._open_session()
        endpoint = self._choose()
        endpoint.in_flight += 1
        try:
            async with session.post(endpoint.url, data=data, allow_redirects=False, proxy=endpoint.proxy) as response:
                body = await _read(response)
                status = response.status
                retry_after = retry_after_seconds(response.headers, time.time()) if status != 200 else None
            self._note(endpoint, failed=status >= 500 or status == 429)
            return status, body, retry_after
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            failure = self._transport_failure(error, endpoint)
        finally:
            endpoint.in_flight -= 1
        self._note(endpoint, failed=True)
        # Raised out here so that no exception of the HTTP library, which may hold headers, hangs on to it.
        raise failure

    def _open_session(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(self._timeout, CONNECT_SECONDS)),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self._session

    def _choose(self) -> _Endpoint:
        if len(self._endpoints) == 1:
            return self._endpoints[0]
        now = asyncio.get_running_loop().time()
        chosen = min(self._endpoints, key=lambda point: (point.resting_until > now, point.in_flight, point.used))
        chosen.used += 1
        return chosen

    def _note(self, endpoint: _Endpoint, *, failed: bool) -> None:
        """Let a failing endpoint rest, longer each time."""
        if not failed:
            endpoint.failures = 0
            return
        first, most = REST_SECONDS
        endpoint.resting_until = asyncio.get_running_loop().time() + min(first * 2**endpoint.failures, most)
        endpoint.failures = min(endpoint.failures + 1, 16)

    def _transport_failure(self, error: BaseException, endpoint: _Endpoint) -> ProviderError:
        if isinstance(error, TimeoutError):
            message = f"no answer from {endpoint.shown} within {self._timeout:g} s"
            return ProviderError(message, kind="timeout", retryable=True, hint="raise `timeout` of the connection")
        said = self._redactor.excerpt(str(error) or type(error).__name__)
        if isinstance(error, aiohttp.ClientSSLError):
            hint = "check `base_url`, and SSL_CERT_FILE where the certificate is your own"
            return ProviderError(f"no trusted connection with {endpoint.shown}: {said}", kind="setup", hint=hint)
        return ProviderError(f"no connection with {endpoint.shown}: {said}", kind="transport", retryable=True)

    def _learn(self, form: bytes, said: str) -> None:
        """Remember that the server does not take this schema, so that it is asked once and no more."""
        if form not in self._refused:
            self._refused.add(form)
            self._warn(f"`{self._model}`: the server does not take the schema, so replies are only read: "
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


def _endpoint(base_url: str) -> _Endpoint:
    base = URL(base_url)
    # A query (Azure's `api-version`) belongs behind the path.
    url = base.with_path(f"{base.path.rstrip('/')}/chat/completions").with_query(base.query)
    return _Endpoint(url, bare_url(base_url), _proxy(url))


def _proxy(url: URL) -> URL | None:
    """The proxy that the environment names for `url`; asked once, as aiohttp would ask for every request."""
    host = url.host or ""
    if host in ("localhost", "::1") or host.startswith("127.") or proxy_bypass(host):
        return None
    proxy = getproxies().get(url.scheme)
    return URL(proxy) if proxy else None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, at most `MAX_BODY` of it: a longer one is cut, and then is no JSON."""
    if (response.content_length or 0) <= MAX_BODY and response.content_length is not None:
        return await response.read()
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            response.close()
            break
    return b"".join(parts)


def _form(constraint: Constraint | None) -> bytes:
    """What a server is remembered to have refused: the form of a constraint."""
    if constraint is None:
        return b""
    return orjson.dumps([constraint.choices, constraint.json_schema], option=orjson.OPT_SORT_KEYS)
