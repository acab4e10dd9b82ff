"""Collects mistakes, so that one reading of a project reports all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bqbuild.core.errors import BqError, ProjectError, ProjectErrors, Where


class Mistakes:
    """The mistakes found so far. Readers add to it and go on; the caller raises at the end."""

    def __init__(self) -> None:
        self.errors: list[BqError] = []
        self.warnings: list[tuple[str, Where | None]] = []
        self._seen: set[tuple[str, Where | None]] = set()

    def add(self, message: str, where: Where | None = None, hint: str | None = None) -> None:
        """Note one mistake."""
        self.note(ProjectError(message, where=where, hint=hint))

    def note(self, error: BqError) -> None:
        """Note an error, or each of the errors that it holds; the same mistake in the same place is told once."""
        for each in error.errors if isinstance(error, ProjectErrors) else [error]:
            key = (each.message, each.where)
            if key not in self._seen:
                self._seen.add(key)
                self.errors.append(each)

    def warn(self, message: str, where: Where | None = None) -> None:
        """Note something that the user should know and that stops nothing."""
        if (message, where) not in self.warnings:
            self.warnings.append((message, where))

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Note what the block raises as a ProjectError, and go on behind it."""
        try:
            yield
        except ProjectError as error:
            self.note(error)

    def raise_any(self) -> None:
        """Raise ProjectErrors where there is a mistake."""
        if self.errors:
            raise ProjectErrors(self.errors)
