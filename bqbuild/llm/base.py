"""What a provider of LLM calls is, and what calls by batch need to be written down in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.batches import BatchBook
from bqbuild.core.events import BatchProgress
from bqbuild.core.records import ChatReply, ChatRequest

Warn = Callable[[str], None]
Tell = Callable[[BatchProgress], None]


class Provider(Protocol):
    """Sends one request and returns its reply. Retries, limits and the log are the client's."""

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises ProviderError, and nothing else, where there is none."""

    async def close(self) -> None:
        """Release connections, threads and memory."""


class ProviderKind(Protocol):
    """One entry of the registry: how to identify and open a provider."""

    def identity(self, connection: ConnectionSpec) -> Mapping[str, Any]:
        """What makes this LLM the same LLM, for the call key. Cheap: no network, no torch.

        Raises ProjectError where the LLM is not there (a path without weights, say).
        """

    def constrains(self, connection: ConnectionSpec) -> bool:
        """Whether a schema is sent where neither the model nor the connection says so."""

    def open(self, connection: ConnectionSpec, warn: Warn) -> Provider:
        """A provider ready to be asked."""


@dataclass(frozen=True, slots=True)
class Batching:
    """What a client needs where a connection has `mode: batch`: a book to write batches down in, and whom to tell.

    Where answers are asked for again, those of epoch `since` or later count as new. With `repay` an answer whose
    record is damaged is bought again.
    """

    book: BatchBook
    tell: Tell
    since: int = 0
    repay: bool = False
