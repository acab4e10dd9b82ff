"""The one tree of errors.

BqError                     exit code 1
├── ProjectError            exit 2: a mistake in the project's files or configuration
│   └── ProjectErrors       exit 2: several of them, reported together
├── UsageError              exit 2: the command line asks for what does not exist
├── BuildError              a node cannot be built
├── StoreError              the store cannot be read, written or trusted
└── ProviderError           an LLM gave no answer

A message is one line of what is wrong; `where` says where, `hint` says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True, order=True)
class Where:
    """A place in a file of the project; lines and columns count from 1, 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        parts = [self.file]
        if self.line:
            parts.append(str(self.line))
            if self.column:
                parts.append(str(self.column))
        return ":".join(parts)


class BqError(Exception):
    """What went wrong, where, and what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, where: Where | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        if not self.hint:
            return text
        return f"{text} ({self.hint})" if self.hint.startswith("did you mean") else f"{text}\n  hint: {self.hint}"


class ProjectError(BqError):
    """A mistake in the project's files or configuration."""

    exit_code = 2


class ProjectErrors(ProjectError):
    """Every mistake found in one reading of the project."""

    def __init__(self, errors: Iterable[BqError]) -> None:
        self.errors: Sequence[BqError] = sorted(errors, key=lambda error: (error.where or Where(""), error.message))
        super().__init__(f"{len(self.errors)} mistakes in the project")

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class UsageError(BqError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class BuildError(BqError):
    """A node cannot be built."""


class StoreError(BqError):
    """The store cannot be read, written or trusted."""


class ProviderError(BqError):
    """An LLM gave no answer.

    `kind` is one of `transport`, `timeout`, `rate_limit`, `server`, `auth`, `setup` (a wrong address or model),
    `request`, `reply`; `retry_after` is in seconds, as the server asked for it. `overloaded` says that the server has
    more than it can take, whatever the kind.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        retryable: bool = False,
        retry_after: float | None = None,
        hint: str | None = None,
        overloaded: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.retryable = retryable
        self.retry_after = retry_after
        self.overloaded = overloaded


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint that offers the nearest known name, or None where nothing is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else None
