"""Call records as JSON objects, the form that journals and segments share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bqbuild.core.records import CallKey, CallRecord, ChatReply, ChatRequest, Constraint, Message


def record_to_json(record: CallRecord) -> dict[str, Any]:
    """A record as a JSON object; every distinction that a call key makes is kept."""
    reply = record.reply
    body = {
        "key": record.key,
        "llm": record.llm,
        "identity": dict(record.identity),
        **request_to_json(record.request),
        "text": reply.text,
        "reasoning": reply.reasoning,
        "finish_reason": reply.finish_reason,
        "input_tokens": reply.input_tokens,
        "output_tokens": reply.output_tokens,
        "model": reply.model,
        "fingerprint": reply.fingerprint,
        "cost": record.cost,
        "seconds": record.seconds,
        "created": record.created,
    }
    return body | {"epoch": record.epoch} if record.epoch else body


def record_from_json(body: Mapping[str, Any]) -> CallRecord:
    """What `record_to_json` wrote. Raises KeyError or TypeError for anything else."""
    reply = ChatReply(
        text=body["text"],
        reasoning=body["reasoning"],
        finish_reason=body["finish_reason"],
        input_tokens=body["input_tokens"],
        output_tokens=body["output_tokens"],
        model=body["model"],
        fingerprint=body["fingerprint"],
    )
    return CallRecord(
        key=CallKey(body["key"]),
        llm=body["llm"],
        identity=body["identity"],
        request=request_from_json(body),
        reply=reply,
        cost=body["cost"],
        seconds=body["seconds"],
        created=body["created"],
        epoch=body.get("epoch", 0),
    )


def request_to_json(request: ChatRequest) -> dict[str, Any]:
    """A request as a JSON object."""
    return {
        "messages": [[message.role, message.content] for message in request.messages],
        "params": dict(request.params),
        "sample": request.sample,
        "constraint": _constraint_to_json(request.constraint),
    }


def request_from_json(body: Mapping[str, Any]) -> ChatRequest:
    """What `request_to_json` wrote. Raises KeyError or TypeError for anything else."""
    return ChatRequest(
        messages=tuple(Message(role, content) for role, content in body["messages"]),
        params=body["params"],
        sample=body["sample"],
        constraint=_constraint_from_json(body["constraint"]),
    )


def _constraint_to_json(constraint: Constraint | None) -> dict[str, Any] | None:
    if constraint is None:
        return None
    return {"choices": list(constraint.choices), "json_schema": constraint.json_schema}


def _constraint_from_json(body: Mapping[str, Any] | None) -> Constraint | None:
    return None if body is None else Constraint(tuple(body["choices"]), body["json_schema"])
