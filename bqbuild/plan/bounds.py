"""Upper bounds on what calls can use, before they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bqbuild.config.specs import PriceSpec
from bqbuild.core.records import ChatRequest

TOKENS_PER_MESSAGE = 16
"""More than any chat template adds to a message (role markers, separators, a default system line's share)."""


def most_input_tokens(request: ChatRequest) -> int:
    """No byte-level tokenizer makes more tokens than there are UTF-8 bytes."""
    content = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in request.messages)
    return content + TOKENS_PER_MESSAGE * (len(request.messages) + 1)


def most_output_tokens(params: Mapping[str, Any]) -> int | None:
    """What the request allows the reply, or None where it sets no limit."""
    for name in ("max_tokens", "max_completion_tokens"):
        value = params.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def most_cost(request: ChatRequest, price: PriceSpec, *, unlimited: int) -> float:
    """The most dollars that a call can cost; a reply that the request does not limit has `unlimited` tokens at most."""
    limit = most_output_tokens(request.params)
    output = unlimited if limit is None else limit
    return (most_input_tokens(request) * price.input + output * price.output) / 1e6
