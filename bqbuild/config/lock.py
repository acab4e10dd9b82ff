"""`project/sources.lock`: the inferred schema of every source, committed, so that data cannot retype a column."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bqbuild.config.yamlfile import parse_yaml, read_text
from bqbuild.core.errors import ProjectError, Where
from bqbuild.core.records import Column

_HEADER = "# Written by bqbuild; commit it. `bqbuild parse --update-sources` infers the types again."


@dataclass(frozen=True, slots=True)
class SourcesLock:
    """The columns of each source, in their order, by the source's name."""

    sources: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)

    def columns(self, name: str) -> tuple[Column, ...] | None:
        """The locked columns of a source, or None where it has not been looked at yet."""
        return self.sources.get(name)

    def with_source(self, name: str, columns: Sequence[Column]) -> SourcesLock:
        """The lock with these columns for `name`."""
        return SourcesLock({**self.sources, name: tuple(columns)})

    def without_source(self, name: str) -> SourcesLock:
        """The lock without `name`: its columns will be inferred again."""
        return SourcesLock({key: columns for key, columns in self.sources.items() if key != name})

    def text(self) -> str:
        """The file's text: sources in the order of their names, columns in their own."""
        lines = [_HEADER, "sources:" if self.sources else "sources: {}"]
        for name in sorted(self.sources):
            lines.append(f"  {_quoted(name)}:" if self.sources[name] else f"  {_quoted(name)}: {{}}")
            lines += [f"    {_quoted(column.name)}: {_quoted(column.type)}" for column in self.sources[name]]
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> bool:
        """Write the lock to `path`, whole or not at all; False where the file says so already. Raises ProjectError."""
        text = self.text()
        try:
            if path.is_file() and path.read_text("utf-8") == text:
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".sources.lock.")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)  # mkstemp makes files that only the owner reads; this one is committed
            os.replace(name, path)
        except OSError as error:
            raise ProjectError(f"cannot be written: {error.strerror}", where=Where(path.name)) from error
        return True


def read_lock(path: Path, shown_as: str = "project/sources.lock") -> SourcesLock:
    """Read the lock; a file that is not there is an empty lock. Raises ProjectError."""
    return parse_lock(read_text(path, shown_as), shown_as) if path.is_file() else SourcesLock()


def parse_lock(text: str, shown_as: str = "project/sources.lock") -> SourcesLock:
    """The lock that `text` holds. Raises ProjectError."""
    document = parse_yaml(text, shown_as)
    value = document.value
    sources = value.get("sources") if isinstance(value, dict) and set(value) == {"sources"} else None
    if not isinstance(sources, dict):
        hint = "delete it and run `bqbuild parse --update-sources`"
        raise ProjectError("is not a lock of sources", where=Where(shown_as), hint=hint)
    found: dict[str, tuple[Column, ...]] = {}
    for name, columns in sources.items():
        is_good = isinstance(columns, dict) and all(isinstance(each, str) for each in columns.values())
        if not is_good:
            raise ProjectError(f"'{name}' must map columns to types", where=document.where(("sources", name)))
        found[name] = tuple(Column(column, kind) for column, kind in columns.items())
    return SourcesLock(found)


def _quoted(text: str) -> str:
    """A name as YAML reads it back: plain where that is safe, else in JSON's quotes."""
    is_plain = text.replace("_", "a").isalnum() and text.isascii() and text[0].isalpha()
    is_word = text.lower() in ("true", "false", "null")
    return text if is_plain and not is_word else json.dumps(text, ensure_ascii=False)
