"""A chat completions server on loopback: real HTTP, deterministic answers, and every fault that can be asked for.

As a script it serves until it is stopped: `python tests/llm_server.py --port 8000`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
import xxhash
from aiohttp import web

Body = dict[str, Any]
Answer = str | dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """How one request goes wrong. `cut` breaks the connection: `before` an answer, or in the `middle` of it.

    `edit` changes the JSON of an otherwise good answer; `body` replaces it. `delay` is in seconds; `hold` keeps the
    answer until it is set. Of a streamed answer, `pieces` replaces what is sent, as it is, and `drip` is the time
    between two pieces.
    """

    status: int = 200
    delay: float = 0.0
    hold: threading.Event | None = None
    cut: str = ""
    body: bytes | None = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    edit: Callable[[Body], Any] | None = None
    pieces: list[bytes] | None = None
    drip: float = 0.0


class LlmServer:
    """Serves in a thread while the context lasts. `requests` holds the bodies received, in order.

    A request takes the first of `faults`, if there is any; else `fault(body, number)` decides, the number counting
    requests from 1. `api_key` is then required, `capacity` the most requests in flight before it answers 429.
    A request with `stream` is answered in events, unless `streams` is false.
    """

    def __init__(self, answer: Callable[[Body], Answer] | None = None, *, port: int = 0) -> None:
        self.answer = answer or default_answer
        self.faults: deque[Fault] = deque()
        self.fault: Callable[[Body, int], Fault | None] = lambda body, number: None
        self.api_key: str | None = None
        self.capacity: int | None = None
        self.retry_after = "0.05"
        self.delay = 0.0
        self.streams = True
        self.model: str | None = None
        self.fingerprint = "fp-1"
        self.requests: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.statuses: list[int] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.port = port
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL, `…/v1`."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Serve; after a `stop` on the same port."""
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(self._loop, ready), daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the test server did not start")

    def stop(self) -> None:
        """Break all connections and stop serving."""
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._loop = self._thread = None

    def clear(self) -> None:
        """Forget the requests received."""
        with self._lock:
            self.requests.clear()
            self.headers.clear()
            self.paths.clear()
            self.statuses.clear()
            self.most_in_flight = 0

    def _serve(self, loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(self._start())
        ready.set()
        loop.run_forever()

    async def _start(self) -> None:
        app = web.Application(client_max_size=256 << 20)
        app.router.add_post("/v1/chat/completions", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body: Body = orjson.loads(await request.read())
        with self._lock:
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            self.paths.append(request.path_qs)
            number = len(self.requests)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            fault = self.faults.popleft() if self.faults else self.fault(body, number)
        try:
            response = await self._respond(request, body, fault or self._standing_fault(request))
            self.statuses.append(response.status)
            return response
        finally:
            with self._lock:
                self.in_flight -= 1

    def _standing_fault(self, request: web.Request) -> Fault | None:
        sent = request.headers.get("Authorization", "")
        if self.api_key is not None and sent != f"Bearer {self.api_key}":
            # As careless as some real servers: it says back what it was sent.
            return Fault(status=401, body=orjson.dumps({"error": {"message": f"bad key in 'Authorization: {sent}'"}}))
        if self.capacity is not None and self.in_flight > self.capacity:
            return Fault(status=429, headers={"Retry-After": self.retry_after} if self.retry_after else {})
        return None

    async def _respond(self, request: web.Request, body: Body, fault: Fault | None) -> web.StreamResponse:
        fault = fault or Fault()
        if delay := fault.delay or self.delay:
            await asyncio.sleep(delay)
        while fault.hold is not None and not fault.hold.is_set():
            await asyncio.sleep(0.02)
        assert request.transport is not None
        if fault.cut == "before":
            request.transport.abort()
            return web.Response(status=500)
        data = fault.body
        if data is None:
            completion: Any = (
                self._completion(body) if fault.status == 200 else {"error": {"message": f"{fault.status}"}}
            )
            completion = fault.edit(completion) if fault.edit else completion
            if body.get("stream") and self.streams and fault.status == 200:
                return await self._stream(request, completion, fault)
            data = orjson.dumps(completion)
        if fault.cut == "middle":
            stream = web.StreamResponse(headers={"Content-Length": str(len(data)), "Content-Type": "application/json"})
            await stream.prepare(request)
            await stream.write(data[: len(data) // 2])
            request.transport.abort()
            return stream
        return web.Response(status=fault.status, body=data, content_type=fault.content_type, headers=fault.headers)

    async def _stream(self, request: web.Request, completion: Body, fault: Fault) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", **fault.headers})
        await stream.prepare(request)
        pieces = events(completion) if fault.pieces is None else fault.pieces
        for piece in pieces[: len(pieces) // 2] if fault.cut == "middle" else pieces:
            await stream.write(piece)
            await asyncio.sleep(fault.drip)
        if fault.cut == "middle":
            assert request.transport is not None
            request.transport.abort()
        return stream

    def _completion(self, body: Body) -> Body:
        answer = self.answer(body)
        message = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
        words = sum(len(str(part.get("content", "")).split()) for part in body["messages"])
        return {
            "id": "chatcmpl-test",
            "object": "chat.completion",
            "model": self.model or body["model"],
            "system_fingerprint": self.fingerprint,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": words, "completion_tokens": len(str(message.get("content")).split())},
        }


def events(completion: Body) -> list[bytes]:
    """A completion as server-sent events: a delta a word, then the finish reason, the usage, and the end."""
    head = {name: completion[name] for name in ("id", "model", "system_fingerprint")}
    choice = completion["choices"][0]
    deltas: list[Body] = [{"role": "assistant", "content": ""}]
    for name, text in choice["message"].items():
        if name != "role" and isinstance(text, str):
            deltas += [{name: word} for word in re.findall(r"\S+\s*|\s+", text)]
    parts = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    parts.append({"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]})
    chunks: list[Body] = [{**head, "choices": [part], "usage": None} for part in parts]
    chunks.append({**head, "choices": [], "usage": completion["usage"]})
    return [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks] + [b"data: [DONE]\n\n"]


def default_answer(body: Body) -> str:
    """A function of the request alone: what its schema wants, a label, a JSON object, or a sentence."""
    mark = xxhash.xxh3_64_hexdigest(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))[:8]
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    if schema is not None:
        return orjson.dumps(_filled(schema, mark)).decode()
    text = "\n".join(str(message["content"]) for message in body["messages"])
    if "JSON" in text:
        return orjson.dumps({"question": f"What is {mark}?", "answer": f"It is {mark}."}).decode()
    if label := _first_label(text):
        return label
    return f"Answer {mark}."


def _first_label(text: str) -> str | None:
    if match := re.search(r"one of:?\s*([\w ]+?)\s*(?:,|\bor\b|\n|$)", text):
        return match[1]
    if match := re.search(r"\b(\d+)\s*(?:-|to|\u2013)\s*\d+\b", text):
        return match[1]
    return None


def _filled(schema: dict[str, Any], mark: str) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        return {name: _filled(part, f"{name} {mark}") for name, part in schema["properties"].items()}
    if kind == "array":
        return [_filled(schema["items"], f"{mark} {number}") for number in (1, 2)]
    return {"integer": 1, "number": 0.5, "boolean": True}.get(str(kind), mark)


def main() -> None:
    """Serve by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    with LlmServer(port=options.port) as server:
        server.delay = options.delay
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
