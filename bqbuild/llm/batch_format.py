"""The wire format of OpenAI's Batch API: lines of requests, batch objects, lines of answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from bqbuild.core.errors import ProviderError
from bqbuild.core.records import CallKey, ChatReply, ChatRequest
from bqbuild.llm.chat_format import error_message, read_failure, read_reply, request_body

ENDPOINT = "/v1/chat/completions"
METADATA = "bqbuild"
"""The key of a batch's metadata under which it bears our token."""

ENDED = frozenset(("completed", "failed", "expired", "cancelled"))
"""Statuses after which a batch changes no more; any other one, an unknown one too, is waited for."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a provider found wrong with a file of requests; `line` counts from 1, None where it names none."""

    message: str
    code: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as its provider describes it. The counts are of requests; `seconds` is how long it took, if known."""

    id: str
    status: str
    token: str = ""
    created: float = 0.0
    total: int = 0
    done: int = 0
    failed: int = 0
    output_file: str = ""
    error_file: str = ""
    problems: tuple[Problem, ...] = ()
    seconds: float = 0.0


def request_line(key: CallKey, model: str, request: ChatRequest, *, constrained: bool) -> bytes:
    """The line of a call in a file of requests, its newline included."""
    line = {
        "custom_id": key,
        "method": "POST",
        "url": ENDPOINT,
        "body": orjson.Fragment(request_body(model, request, constrained=constrained)),
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def read_batch(data: Any) -> RemoteBatch:
    """A batch object. Raises ProviderError of kind `reply` for anything that is none."""
    if not isinstance(data, dict) or not isinstance(data.get("id"), str) or not isinstance(data.get("status"), str):
        raise ProviderError("the server sent something that is no batch", kind="reply", retryable=True)
    counts = _object(data.get("request_counts"))
    created, ended = _number(data.get("created_at")), _ended(data)
    return RemoteBatch(
        id=data["id"],
        status=data["status"],
        token=_text(_object(data.get("metadata")).get(METADATA)),
        created=created,
        total=int(_number(counts.get("total"))),
        done=int(_number(counts.get("completed"))),
        failed=int(_number(counts.get("failed"))),
        output_file=_text(data.get("output_file_id")),
        error_file=_text(data.get("error_file_id")),
        problems=tuple(_problems(_object(data.get("errors")).get("data"))),
        seconds=max(ended - created, 0.0) if ended and created else 0.0,
    )


def read_line(line: bytes) -> tuple[CallKey, ChatReply | ProviderError] | None:
    """The call that a line of an output or error file is about, and what came of it; None for a line that is none."""
    try:
        data = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("custom_id"), str):
        return None
    return CallKey(data["custom_id"]), _outcome(data)


def _outcome(data: dict[str, Any]) -> ChatReply | ProviderError:
    response = data.get("response")
    if isinstance(response, dict) and isinstance(status := response.get("status_code"), int):
        body = orjson.dumps(response.get("body"))
        if status != 200:
            return read_failure(status, error_message(body), None)
        try:
            return read_reply(body)
        except ProviderError as error:
            return error
    problem = _object(data.get("error"))
    code = _text(problem.get("code"))
    if code == "batch_cancelled":
        return cancelled()
    said = _text(problem.get("message")) or code or "it did not say why"
    return ProviderError(f"the batch has no answer to this request: {said}", kind="server", retryable=True)


def cancelled() -> ProviderError:
    """The batch was cancelled, by somebody who meant it: nothing is sent again in this run."""
    hint = "`bqbuild run` sends what has no answer again"
    return ProviderError("the batch was cancelled at the provider", kind="server", hint=hint)


def _problems(found: Any) -> list[Problem]:
    problems = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    return [
        Problem(
            message=_text(item.get("message")) or _text(item.get("code")) or "it did not say why",
            code=_text(item.get("code")),
            line=item["line"] if isinstance(item.get("line"), int) else None,
        )
        for item in problems
    ]


def _ended(data: dict[str, Any]) -> float:
    return max(_number(data.get(f"{status}_at")) for status in ENDED)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else 0
