"""The book of batches that a provider was sent: the store keeps it, the client writes in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from bqbuild.core.records import BatchRecord, CallKey, ChatRequest


class BatchBook(Protocol):
    """Batches of calls at a provider whose answers are not all in the log yet."""

    @property
    def scratch(self) -> Path:
        """A folder for files on their way to and from a provider."""

    def open(self) -> list[BatchRecord]:
        """All of them, the oldest first."""

    def find(self, token: str) -> BatchRecord | None:
        """How far a batch has got, or None where it is done with."""

    def plan(self, record: BatchRecord, calls: Iterable[tuple[CallKey, ChatRequest]]) -> None:
        """Write down a batch that is about to be sent; for the holder of the lease of planning."""

    def write(self, record: BatchRecord) -> None:
        """Write down how far a batch has got."""

    def calls(self, token: str) -> Iterator[tuple[CallKey, ChatRequest]]:
        """The calls of a batch, in the order in which it was planned."""

    def keys(self, token: str) -> list[CallKey]:
        """The keys of these calls."""

    def remove(self, token: str) -> None:
        """Forget a batch: all that it answered is in the log."""

    def hold(self, token: str = "") -> AbstractContextManager[bool]:
        """Wait for the lease of a batch, or of planning where none is named, and hold it."""
