"""Requests and replies that were made elsewhere, from the forms in which people keep them. Pure.

{"request": {"model": …, "messages": […], …}, "response": {…} or "text"}   a pair of OpenAI's chat completions
{"messages": […, {"role": "assistant", …}]}                               a chat, as for fine-tuning
{"custom_id": …, "body": {…}} and {"custom_id": …, "response": {…}}       OpenAI's Batch API, joined by custom_id
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from bqbuild.core.errors import BqError, ProviderError
from bqbuild.core.records import ChatReply, ChatRequest, Constraint, Message
from bqbuild.llm.chat_format import LABEL, read_reply, response_format
from bqbuild.llm.keys import merge_params

ROLES = ("system", "user", "assistant")
_NOT_PARAMS = frozenset({"model", "messages", "stream", "stream_options", "n", "response_format"})


class Refused(BqError):
    """A line that is no request with its reply; the message says why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A request body, and what was answered: a chat completion or plain text. `is_whole` is False where the body has
    messages only, and says nothing of parameters."""

    body: Mapping[str, Any]
    response: Any
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Half:
    """A line of a batch: its request (`body`) or what came of it (`response`), to be joined by `custom_id`."""

    custom_id: str
    body: Mapping[str, Any] | None = None
    response: Any = None


def read_line(value: Any) -> Pair | Half:
    """What one line holds. Raises Refused."""
    if not isinstance(value, dict):
        raise Refused("it is no JSON object")
    if isinstance(value.get("request"), dict) and "response" in value:
        return Pair(value["request"], value["response"])
    if isinstance(value.get("custom_id"), str):
        if isinstance(value.get("body"), dict):
            return Half(value["custom_id"], body=value["body"])
        if "response" in value:
            return Half(value["custom_id"], response=_batch_response(value))
    messages = value.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        if messages[-1].get("role") != "assistant":
            raise Refused("its last message is not the assistant's, so there is no reply")
        body = {"messages": messages[:-1], **({"model": value["model"]} if "model" in value else {})}
        return Pair(body, {"choices": [{"message": messages[-1]}]}, is_whole=False)
    raise Refused("it has neither `request` and `response`, nor `messages`, nor a `custom_id` of a batch")


def request_of(pair: Pair, defaults: Mapping[str, Any]) -> ChatRequest:
    """The request that a run would make of these messages; `defaults` are parameters that the pair leaves out where it
    says nothing of them. Raises Refused."""
    body = pair.body
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("its request has no `messages`")
    given = {name: value for name, value in body.items() if name not in _NOT_PARAMS}
    constraint = _constraint(body.get("response_format"))
    if constraint is None and body.get("response_format") is not None:
        given["response_format"] = body["response_format"]
    params = merge_params({}, {} if pair.is_whole else defaults, given)
    return ChatRequest(tuple(_message(message) for message in messages), params, constraint=constraint)


def replies_of(pair: Pair) -> list[ChatReply]:
    """The replies of a pair, one a choice where several were asked for. Raises Refused."""
    response = pair.response
    if isinstance(response, str):
        return [ChatReply(response)]
    choices = response.get("choices") if isinstance(response, dict) else None
    if not isinstance(choices, list) or not choices:
        raise Refused("its response is neither text nor a chat completion")
    try:
        return [read_reply(orjson.dumps({**response, "choices": [choice]})) for choice in choices]
    except (ProviderError, TypeError) as error:
        raise Refused(f"its response cannot be read: {error}") from error


def _batch_response(value: Mapping[str, Any]) -> Any:
    response = value["response"]
    if not isinstance(response, dict) or value.get("error"):
        raise Refused("the batch has no response to it")
    status = response.get("status_code", 200)
    if status != 200:
        raise Refused(f"the batch has an error to it (HTTP {status})")
    return response.get("body", response)


def _message(value: Any) -> Message:
    if not isinstance(value, dict) or value.get("role") not in ROLES:
        role = value.get("role") if isinstance(value, dict) else None
        raise Refused(f"a message has the role {role!r}: a prompt makes {', '.join(ROLES)} only")
    content = value.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise Refused("a message has parts that are no text")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str) or value.get("tool_calls"):
        raise Refused("a message has no text")
    return Message(value["role"], content)


def _constraint(form: Any) -> Constraint | None:
    """The constraint that makes a request send this `response_format`; None where none does."""
    schema = form.get("json_schema", {}).get("schema") if isinstance(form, dict) else None
    if not isinstance(schema, dict):
        return None
    label = schema.get("properties", {}).get(LABEL, {}) if list(schema.get("properties", {})) == [LABEL] else {}
    for constraint in (Constraint(tuple(label.get("enum", ()))), Constraint(json_schema=schema)):
        if response_format(constraint) == form:
            return constraint
    return None
