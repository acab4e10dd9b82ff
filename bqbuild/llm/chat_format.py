"""OpenAI's wire format: from a request to a body, and from a body to a reply or an error. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from bqbuild.core.errors import ProviderError
from bqbuild.core.records import ChatReply, ChatRequest, Constraint

LABEL = "label"
"""The key under which a reply constrained to labels puts its choice: servers want an object at the root."""

OVERLOADED = (503, 529)
"""Statuses that mean, as 429 does, that there is more work than the server takes."""

CONTENT_FILTERS = {"content_filter", "content_policy_violation", "content_filter_error"}
STREAM_FROM = 4096
"""The `max_tokens` from which replies are streamed where the connection does not say: so long a reply takes minutes, in
which a server that works and one that hangs look the same."""

_FORMAT_WORDS = re.compile(r"response_format|json_schema|structured.?output|guided|grammar|json mode", re.IGNORECASE)
_FATAL_WORDS = re.compile(r"insufficient_quota|billing|exceeded your current quota|insufficient balance", re.IGNORECASE)
_MODERATION = re.compile(r"moderation|flagged|content.?policy|content.?filter", re.IGNORECASE)
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SURROGATE = re.compile("[\ud800-\udfff]")
FINISH = {"max_tokens": "length", "max_output_tokens": "length", "end_turn": "stop", "eos": "stop", "": "stop"}


def request_body(model: str, request: ChatRequest, *, constrained: bool, streamed: bool = False) -> bytes:
    """The body of a request. A declared `seed` is shifted by the sample, or all samples would be the same."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        **request.params,
    }
    if request.sample and isinstance(body.get("seed"), int):
        body["seed"] += request.sample
    if constrained and request.constraint is not None:
        body["response_format"] = response_format(request.constraint)
    if streamed:
        body["stream"], body["stream_options"] = True, {"include_usage": True}
    try:
        return orjson.dumps(body)
    except TypeError:  # integers beyond 64 bits, lone surrogates
        return _SURROGATE.sub("\ufffd", json.dumps(body, ensure_ascii=False)).encode()


def response_format(constraint: Constraint) -> dict[str, Any]:
    """What asks a server to hold the reply to `constraint`."""
    schema = constraint.json_schema
    if schema is None:
        schema = {
            "type": "object",
            "properties": {LABEL: {"type": "string", "enum": list(constraint.choices)}},
            "required": [LABEL],
            "additionalProperties": False,
        }
    return {"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": True}}


def read_reply(body: bytes) -> ChatReply:
    """The reply in the body of a 200. Raises ProviderError of kind `reply` for anything that is none."""
    data = loads(body)
    if not isinstance(data, dict):
        raise _no_reply("the server sent something that is no chat completion", body)
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        what = "an error" if data.get("error") else "a reply without `choices`"
        raise _no_reply(f"the server sent {what}", body)
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _no_reply("the server sent a choice without a `message`", body)
    usage = data.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    refusal = text_of(message.get("refusal"))
    finish = text_of(choice.get("finish_reason"))
    return ChatReply(
        text=text_of(message.get("content")) or refusal,
        reasoning=text_of(message.get("reasoning_content") or message.get("reasoning")),
        finish_reason="refusal" if refusal else FINISH.get(finish, finish),
        input_tokens=count_of(usage.get("prompt_tokens")),
        output_tokens=count_of(usage.get("completion_tokens")),
        model=text_of(data.get("model")),
        fingerprint=text_of(data.get("system_fingerprint")),
    )


def read_refusal(status: int, body: bytes) -> ChatReply | None:
    """The reply that a refusal by a content filter is, though it comes as an error: asking again would not help."""
    if status not in (400, 403):
        return None
    data = loads(body)
    error = data.get("error") if isinstance(data, dict) else None
    if not isinstance(error, dict) or not {error.get("code"), error.get("type")} & CONTENT_FILTERS:
        return None
    return ChatReply(text_of(error.get("message")), finish_reason="content_filter")


def read_failure(status: int, message: str, retry_after: float | None) -> ProviderError:
    """The error that a status other than 200 means; `message` is what the server said, redacted."""
    said = f": {message}" if message else ""
    if status == 401 or (status == 403 and not _MODERATION.search(message)):
        hint = "check `api_key` of the connection in profiles.yml, and that the key may use this model"
        return ProviderError(f"the server refused the key (HTTP {status}){said}", kind="auth", hint=hint)
    if status == 402 or (status == 429 and _FATAL_WORDS.search(message)):
        return ProviderError(
            f"the account has no credit (HTTP {status}){said}", kind="auth", hint="top up the account, then run again"
        )
    if status == 429:
        return ProviderError(
            f"too many requests (HTTP 429){said}", kind="rate_limit", retryable=True, retry_after=retry_after
        )
    if status >= 500 or status in (408, 409, 425):
        return ProviderError(
            f"the server failed (HTTP {status}){said}",
            kind="server",
            retryable=True,
            retry_after=retry_after,
            overloaded=status in OVERLOADED,
        )
    if status in (404, 405) or 300 <= status < 400:
        return ProviderError(
            f"nothing answers chat requests at this address (HTTP {status}){said}",
            kind="setup",
            retryable=True,
            hint="check `base_url` (most end in /v1) and `model` of the connection",
        )
    return ProviderError(f"the server refused the request (HTTP {status}){said}", kind="request")


def is_about_format(status: int, message: str) -> bool:
    """Whether a refusal says that the server cannot hold replies to a schema (or not to this one)."""
    return status in (400, 404, 415, 422, 500, 501) and _FORMAT_WORDS.search(message) is not None


def is_about_streaming(status: int, message: str) -> bool:
    """Whether a refusal says that the server cannot stream, or not with the tokens counted."""
    return status in (400, 404, 415, 422, 500, 501) and "stream" in message.lower()


def wants_stream(request: ChatRequest) -> bool:
    """Whether a reply may be so long that it should be streamed."""
    most = request.params.get("max_tokens") or request.params.get("max_completion_tokens")
    return isinstance(most, int | float) and most >= STREAM_FROM


def rate_limit_reset(headers: Mapping[str, str]) -> float | None:
    """When a quota that is used up is whole again, from `x-ratelimit-*`, for a 429 that does not say `Retry-After`."""
    waits = [
        _duration(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}") == "0"
    ]
    known = [wait for wait in waits if wait is not None]
    return max(known) if known else None


def error_message(body: bytes) -> str:
    """What a server says went wrong: the message in its JSON, else the body as text."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace")
        return re.sub(r"<[^<>]{0,200}>", " ", text) if "<" in text[:200] else text
    for key in ("error", "message", "detail"):
        if isinstance(data, dict) and data.get(key):
            data = data[key]
    if isinstance(data, dict | list):
        return json.dumps(data, ensure_ascii=False)
    return str(data)


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """The wait that a server asks for, from `retry-after-ms` or `Retry-After` (seconds or a date); None if unclear."""
    if (text := headers.get("retry-after-ms")) is not None:
        return _seconds(text, 0.001)
    if (text := headers.get("Retry-After")) is None:
        return None
    if (seconds := _seconds(text, 1.0)) is not None:
        return seconds
    try:
        return max(parsedate_to_datetime(text).timestamp() - now, 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _duration(text: str) -> float | None:
    """Seconds in `1s`, `6m0s`, `20ms`, `1h2m3.5s`, or a bare number; None for anything else."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return _seconds(text, 1.0)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _seconds(text: str, unit: float) -> float | None:
    try:
        seconds = float(text) * unit
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def loads(body: bytes) -> Any:
    """The JSON that `body` is, with broken characters replaced; None where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:  # what orjson refuses though a server may well send it: lone surrogates, broken UTF-8
        return json.loads(body.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None


def _no_reply(message: str, body: bytes) -> ProviderError:
    shown = error_message(body)
    return ProviderError(f"{message}: {shown}" if shown else message, kind="reply", retryable=True)


def text_of(value: Any) -> str:
    """A text that can be written down, whatever stands there."""
    if isinstance(value, list):  # content in parts
        value = "".join(text_of(part.get("text")) for part in value if isinstance(part, dict))
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else _SURROGATE.sub("\ufffd", value)


def count_of(value: Any) -> int:
    """A number of tokens, whatever stands there."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0
