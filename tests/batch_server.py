"""A Batch API on loopback beside chat completions: files, batches, contents; real HTTP, and every fault that can be
asked for. A batch moves on each time it is looked at: validating, in_progress, then its end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.llm_server import Body, LlmServer

Line = dict[str, Any]


@dataclass
class RemoteBatch:
    """A batch as this provider keeps it. `left` are the looks until it ends."""

    id: str
    input_file: str
    metadata: dict[str, str]
    lines: list[Line]
    left: int
    end: str = "completed"
    status: str = "validating"
    errors: list[dict[str, Any]] = field(default_factory=list)
    output_file: str | None = None
    error_file: str | None = None
    failed: int = 0


class BatchServer(LlmServer):
    """`counts` holds how often each step was done: `upload`, `create`, `look`, `content`, `files`, `batches`.

    `looks` is the number of looks until a batch has ended. `outcome(body, number)` says what becomes of a request, the
    number counting the lines of its file from 1: an empty dict is a good answer, another one is part of the line, None
    leaves the line out. `ending(batch)` is the status of the end. `break_off(step)` is asked before and after every
    step (`before upload`, `after upload` …): True breaks the connection there. A `status_of(step)` other than 200
    refuses it. `answered` holds what was paid for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.looks = 3
        self.outcome: Callable[[Body, int], Line | None] = lambda body, number: {}
        self.ending: Callable[[RemoteBatch], str] = lambda batch: "completed"
        self.break_off: Callable[[str], bool] = lambda step: False
        self.status_of: Callable[[str], int] = lambda step: 200
        self.files: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.batches: dict[str, RemoteBatch] = {}
        self.answered: list[Body] = []
        self.page = 1000

    def sizes(self) -> list[int]:
        """How many requests each batch had, in order."""
        return [len(batch.lines) for batch in self.batches.values()]

    async def _start(self) -> None:
        # as the base does, with more routes; its application cannot be added to once it runs
        app = web.Application(client_max_size=256 << 20)
        app.router.add_post("/v1/chat/completions", self._handle)
        app.router.add_post("/v1/files", self._step("upload", self._upload))
        app.router.add_get("/v1/files", self._step("files", self._list_files))
        app.router.add_get("/v1/files/{id}/content", self._step("content", self._content))
        app.router.add_post("/v1/batches", self._step("create", self._create))
        app.router.add_get("/v1/batches", self._step("batches", self._list_batches))
        app.router.add_get("/v1/batches/{id}", self._step("look", self._look))
        self._runner = web.AppRunner(app, shutdown_timeout=0.05, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    def _step(self, name: str, act: Any) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.headers.append(dict(request.headers))
            if self._breaks(f"before {name}", request):
                return web.Response(status=500)
            if (status := self.status_of(name)) != 200:
                return web.json_response({"error": {"message": f"{name} says {status}"}}, status=status)
            sent = request.headers.get("Authorization", "")
            if self.api_key is not None and sent != f"Bearer {self.api_key}":
                return web.json_response({"error": {"message": f"bad key in 'Authorization: {sent}'"}}, status=401)
            self.counts[name] += 1
            response: web.StreamResponse = await act(request)
            if self._breaks(f"after {name}", request):
                return web.Response(status=500)
            return response

        return handle

    def _breaks(self, step: str, request: web.Request) -> bool:
        if not self.break_off(step):
            return False
        assert request.transport is not None
        request.transport.abort()
        return True

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        file = form["file"]
        assert isinstance(file, web.FileField)
        name = self._keep(file.file.read(), file.filename)
        return web.json_response(self._file(name))

    def _keep(self, content: bytes, filename: str) -> str:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = content
        self.names[name] = filename
        return name

    def _file(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "file",
            "bytes": len(self.files[name]),
            "filename": self.names[name],
            "purpose": "batch",
        }

    async def _list_files(self, request: web.Request) -> web.Response:
        return self._listed(request, [self._file(name) for name in reversed(self.files)])

    async def _list_batches(self, request: web.Request) -> web.Response:
        return self._listed(request, [self._shown(batch) for batch in reversed(self.batches.values())])

    def _listed(self, request: web.Request, items: list[dict[str, Any]]) -> web.Response:
        ids = [item["id"] for item in items]
        start = ids.index(request.query["after"]) + 1 if "after" in request.query else 0
        size = min(int(request.query.get("limit", 20)), self.page)
        page = items[start : start + size]
        return web.json_response({"object": "list", "data": page, "has_more": start + size < len(items)})

    async def _create(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        assert body["endpoint"] == "/v1/chat/completions"
        assert body["completion_window"] == "24h"
        lines = [orjson.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        batch = RemoteBatch(
            f"batch-{len(self.batches) + 1}", body["input_file_id"], body["metadata"], lines, self.looks
        )
        self.batches[batch.id] = batch
        return web.json_response(self._shown(batch))

    async def _look(self, request: web.Request) -> web.Response:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return web.json_response({"error": {"message": "no such batch"}}, status=404)
        if batch.status not in ("completed", "failed", "expired", "cancelled"):
            batch.left -= 1
            batch.status = "in_progress" if batch.left else self.ending(batch)
            if not batch.left and batch.status != "failed":
                self._answer(batch)
        return web.json_response(self._shown(batch))

    async def _content(self, request: web.Request) -> web.Response:
        content = self.files.get(request.match_info["id"])
        if content is None:
            return web.json_response({"error": {"message": "no such file"}}, status=404)
        return web.Response(body=content, content_type="application/octet-stream")

    def _answer(self, batch: RemoteBatch) -> None:
        good, bad = [], []
        for number, line in enumerate(batch.lines, 1):
            assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
            part = self.outcome(line["body"], number)
            if part is None:
                continue
            answer: Line = {
                "id": f"{batch.id}-{number}",
                "custom_id": line["custom_id"],
                "response": None,
                "error": None,
            }
            if not part:
                self.answered.append(line["body"])
                answer["response"] = {"status_code": 200, "request_id": "r", "body": self._completion(line["body"])}
            answer |= part
            is_good = answer["error"] is None and (answer["response"] or {}).get("status_code") == 200
            (good if is_good else bad).append(orjson.dumps(answer))
        batch.failed = len(bad)
        # the order of answers is not that of requests, and an empty file is no file
        batch.output_file = self._keep(b"\n".join(reversed(good)) + b"\n", "out.jsonl") if good else None
        batch.error_file = self._keep(b"\n".join(bad) + b"\n", "errors.jsonl") if bad else None

    def _shown(self, batch: RemoteBatch) -> dict[str, Any]:
        is_over = batch.status in ("completed", "expired", "cancelled")
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
            "input_file_id": batch.input_file,
            "completion_window": "24h",
            "status": batch.status,
            "output_file_id": batch.output_file,
            "error_file_id": batch.error_file,
            "created_at": 1_700_000_000,
            f"{batch.status}_at": int(time.time()),
            "metadata": batch.metadata,
            "request_counts": {
                "total": len(batch.lines),
                "completed": len(batch.lines) - batch.failed if is_over else 0,
                "failed": batch.failed,
            },
        }


def refusal(status: int, message: str = "no") -> Line:
    """What makes a line one of the error file."""
    return {"response": {"status_code": status, "request_id": "r", "body": {"error": {"message": message}}}}
