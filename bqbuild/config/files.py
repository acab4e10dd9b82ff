"""The files of a project: found in a fixed order, read once, their digests kept."""

from __future__ import annotations

import os
from pathlib import Path

from bqbuild.config.mistakes import Mistakes
from bqbuild.config.yamlfile import Document, decode, parse_yaml
from bqbuild.core.errors import ProjectError, Where
from bqbuild.core.hashing import Digest, digest_bytes


class ProjectFiles:
    """Reads files below `root`; paths are relative to it, with `/`. `digests` says what was read."""

    def __init__(self, root: Path, mistakes: Mistakes) -> None:
        self.root = root
        self.digests: dict[str, Digest] = {}
        self._mistakes = mistakes

    def list(self, folder: str, *suffixes: str) -> list[str]:
        """The files below `folder` that end in one of `suffixes`, sorted; hidden ones are left out."""
        found: list[str] = []
        for parent, folders, files in os.walk(self.root / folder):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
            inside = Path(parent).relative_to(self.root).as_posix()
            found += [f"{inside}/{name}" for name in files if name.endswith(suffixes) and not name.startswith(".")]
        return sorted(found)

    def folders(self, folder: str) -> set[str]:
        """The folders below `folder`, relative to it."""
        base = self.root / folder
        return {
            (Path(parent) / name).relative_to(base).as_posix() for parent, names, _ in os.walk(base) for name in names
        }

    def text(self, shown_as: str) -> str | None:
        """A file's text, or None with the mistake noted."""
        try:
            data = (self.root / shown_as).read_bytes()
        except OSError as error:
            self._mistakes.add(f"cannot be read: {error.strerror}", Where(shown_as))
            return None
        self.digests[shown_as] = digest_bytes(data)
        try:
            return decode(data, shown_as)
        except ProjectError as error:
            self._mistakes.note(error)
            return None

    def yaml(self, shown_as: str) -> Document | None:
        """A YAML file, or None with the mistake noted."""
        text = self.text(shown_as)
        if text is None:
            return None
        try:
            return parse_yaml(text, shown_as)
        except ProjectError as error:
            self._mistakes.note(error)
            return None

    def texts(self, folder: str, *suffixes: str) -> dict[str, str]:
        """The texts of the files that `list` finds; unreadable ones are noted and left out."""
        read = ((name, self.text(name)) for name in self.list(folder, *suffixes))
        return {name: text for name, text in read if text is not None}
