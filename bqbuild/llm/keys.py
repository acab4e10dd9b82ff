"""Call keys: what makes two calls the same call. Pure.

The form is pinned by golden keys in the tests: changing it would buy every call of every user again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bqbuild.core.errors import ProjectError
from bqbuild.core.hashing import digest
from bqbuild.core.records import CallKey, ChatRequest, Constraint

RESERVED = {
    "messages": "they come from the prompt",
    "model": "it belongs to the connection, in profiles.yml",
    "stream": "it is a key of the connection, in profiles.yml",
    "stream_options": "it is sent where the connection streams",
    "n": "use `samples` or `votes`: each draw is then a call of its own",
}
"""Keys of the request body that `params` may not set, and why."""


def call_key(identity: Mapping[str, Any], request: ChatRequest) -> CallKey:
    """Digest of the LLM's identity, the messages, the parameters, the number of the sample, and the constraint.

    The constraint counts only where there is one. `1` and `1.0` are one number on the wire, so they are one here.
    """
    parts: dict[str, Any] = {
        "llm": identity,
        "messages": [[message.role, message.content] for message in request.messages],
        "params": _numbers(request.params),
        "sample": request.sample,
    }
    if request.constraint is not None:
        parts["constraint"] = _constraint(request.constraint)
    return CallKey(digest(["call", parts]))


def merge_params(connection: Mapping[str, Any], prompt: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a request: connection < prompt < model. A null takes a parameter out again.

    Raises ProjectError for a parameter in `RESERVED`.
    """
    merged = {**connection, **prompt, **model}
    for name in merged:
        if name in RESERVED:
            raise ProjectError(f"`params` cannot set '{name}'", hint=RESERVED[name])
    return {name: value for name, value in merged.items() if value is not None}


def _constraint(constraint: Constraint) -> dict[str, Any]:
    if constraint.json_schema is not None:
        return {"json_schema": constraint.json_schema}
    return {"choices": list(constraint.choices)}


def _numbers(value: Any) -> Any:
    """`value` with floats that are whole numbers as integers, at any depth."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, Mapping):
        return {name: _numbers(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(item) for item in value]
    return value
