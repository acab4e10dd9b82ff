"""The Batch API over HTTP: files of requests up, batches made and looked at, files of answers down. No retries here."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import IO, Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from yarl import URL

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.errors import ProviderError
from bqbuild.llm.batch_format import ENDPOINT, METADATA, RemoteBatch, read_batch
from bqbuild.llm.chat_format import error_message, read_failure, retry_after_seconds
from bqbuild.llm.redaction import Redactor, bare_url

CONNECT_SECONDS = 30.0
PAGE = 100
"""Entries of a list that are asked for at a time; more than 100 batches are allowed nowhere."""
MOST_PAGES = 200
CHUNK = 1 << 20
NO_BATCHES = "this server may have no Batch API: write `mode: online`, or check `base_url`"


class Gone(ProviderError):
    """The provider does not know the file or batch (any more)."""


class BatchApi:
    """One provider's Batch API. Every method raises ProviderError, without the key in it."""

    def __init__(self, connection: ConnectionSpec, url: str) -> None:
        self._base = URL(url)
        self.place = bare_url(url)
        self._timeout = connection.timeout
        self._window = connection.batch.window
        self.redactor = Redactor(connection)
        self._headers = dict(connection.headers)
        if key := connection.api_key.strip():
            self._headers["Authorization"] = f"Bearer {key}"
        self._session: aiohttp.ClientSession | None = None

    async def upload(self, name: str, file: IO[bytes]) -> str:
        """Send a file of requests; the provider's name of it."""
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", file, filename=name, content_type="application/jsonl")
        return _id(await self._json("POST", "/files", data=form))

    async def find_file(self, name: str) -> str | None:
        """The provider's name of a file of requests that was uploaded as `name`, if there is one."""
        async for item in self._list("/files", {"purpose": "batch"}):
            if item.get("filename") == name:
                return _id(item)
        return None

    async def create(self, input_file: str, token: str) -> RemoteBatch:
        """Have a file of requests answered."""
        body = {
            "input_file_id": input_file,
            "endpoint": ENDPOINT,
            "completion_window": self._window,
            "metadata": {METADATA: token},
        }
        return read_batch(await self._json("POST", "/batches", json=body))

    async def find_batch(self, token: str) -> RemoteBatch | None:
        """The batch that bears our token, if there is one."""
        async for item in self._list("/batches", {}):
            metadata = item.get("metadata")
            if isinstance(metadata, dict) and metadata.get(METADATA) == token:
                return read_batch(item)
        return None

    async def look(self, batch: str) -> RemoteBatch:
        """How far a batch is. Raises Gone."""
        return read_batch(await self._json("GET", f"/batches/{batch}", may_be_gone=True))

    async def check(self) -> None:
        """Ask for the list of batches: whether there is a Batch API that takes the key."""
        await self._json("GET", "/batches", params={"limit": "1"})

    async def download(self, remote: str, file: IO[bytes]) -> None:
        """Write the content of a file of answers to `file`. Raises Gone, OSError where it cannot be written."""
        session = self._session or self._open_session()
        url = self._url(f"/files/{remote}/content", {})
        try:
            async with session.get(url, allow_redirects=False, proxy=_proxy(url)) as response:
                if response.status != 200:
                    self._refuse(response, await response.content.read(CHUNK), may_be_gone=True)
                while part := await response.content.read(CHUNK):
                    file.write(part)
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            failure = self._transport_failure(error)
        else:
            return
        raise failure

    async def close(self) -> None:
        """Close the pooled connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _list(self, path: str, params: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """The entries of a list, page by page, the newest first as providers give them."""
        after: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            page = await self._json("GET", path, params={"limit": str(PAGE), **params, **after})
            items = page.get("data") if isinstance(page, dict) else None
            if not isinstance(items, list):
                raise ProviderError(f"the server sent something that is no list for {path}", kind="reply")
            items = [item for item in items if isinstance(item, dict)]
            for item in items:
                yield item
            if not (page.get("has_more") and items and isinstance(items[-1].get("id"), str)):
                return
            after = {"after": items[-1]["id"]}

    async def _json(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, may_be_gone: bool = False, **rest: Any
    ) -> Any:
        session = self._session or self._open_session()
        url = self._url(path, params or {})
        try:
            async with session.request(method, url, allow_redirects=False, proxy=_proxy(url), **rest) as response:
                body = await response.read()
                if response.status not in (200, 201):
                    self._refuse(response, body, may_be_gone=may_be_gone)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            failure = self._transport_failure(error)
        else:
            return self._loads(body)
        # Raised out here so that no exception of the HTTP library, which may hold headers, hangs on to it.
        raise failure

    def _open_session(self) -> aiohttp.ClientSession:
        # No total: a file of 200 MB takes as long as it takes, but something must move all the time.
        timeout = aiohttp.ClientTimeout(
            total=None, sock_read=self._timeout, sock_connect=min(self._timeout, CONNECT_SECONDS)
        )
        self._session = aiohttp.ClientSession(
            headers=self._headers, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), json_serialize=_dumps
        )
        return self._session

    def _url(self, path: str, params: Mapping[str, str]) -> URL:
        query = {**self._base.query, **params}
        return self._base.with_path(f"{self._base.path.rstrip('/')}{path}").with_query(query)

    def _refuse(self, response: aiohttp.ClientResponse, body: bytes, *, may_be_gone: bool) -> None:
        """Raise what a status other than 200 means."""
        said = self.redactor.excerpt(error_message(body))
        status = response.status
        if status in (404, 410) and may_be_gone:
            raise Gone(f"the provider does not know it (HTTP {status}): {said}", kind="reply")
        if status in (404, 405, 501) or 300 <= status < 400:
            path = response.url.path
            raise ProviderError(f"nothing answers at {path} (HTTP {status}): {said}", kind="setup", hint=NO_BATCHES)
        raise read_failure(status, said, retry_after_seconds(response.headers, time.time()))

    def _transport_failure(self, error: BaseException) -> ProviderError:
        if isinstance(error, TimeoutError):
            return ProviderError(
                f"no answer from {self.place} within {self._timeout:g} s", kind="timeout", retryable=True
            )
        said = self.redactor.excerpt(str(error) or type(error).__name__)
        if isinstance(error, aiohttp.ClientSSLError):
            hint = "check `base_url`, and SSL_CERT_FILE where the certificate is your own"
            return ProviderError(f"no trusted connection with {self.place}: {said}", kind="setup", hint=hint)
        return ProviderError(f"no connection with {self.place}: {said}", kind="transport", retryable=True)

    def _loads(self, body: bytes) -> Any:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            said = self.redactor.excerpt(error_message(body), 120)
        raise ProviderError(f"the server sent something that is no JSON: {said}", kind="reply", retryable=True)


def _id(item: Any) -> str:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str) or not item["id"]:
        raise ProviderError("the server sent a file without an `id`", kind="reply", retryable=True)
    return str(item["id"])


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


def _proxy(url: URL) -> URL | None:
    host = url.host or ""
    if host in ("localhost", "::1") or host.startswith("127.") or proxy_bypass(host):
        return None
    proxy = getproxies().get(url.scheme)
    return URL(proxy) if proxy else None
