"""What recipes were made of, in a folder: <root>/ab/<recipe digest>.json. Only explanations read it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from bqbuild.core.hashing import Digest
from bqbuild.core.records import Part
from bqbuild.store.disk import checked_json, read_checked, write_atomic

log = logging.getLogger(__name__)


class LocalDefinitions:
    """The definitions of a folder store."""

    def __init__(self, root: Path, *, scratch: Path) -> None:
        self._root = root
        self._scratch = scratch

    def put(self, recipe: Digest, parts: Mapping[str, Part]) -> None:
        """Remember the parts of a recipe; what is remembered of it stays. Raises StoreError."""
        path = self._path(recipe)
        if path.exists():
            return
        entries = {
            name: {"digest": part.digest, "text": part.text, "is_source": part.is_source}
            for name, part in parts.items()
        }
        write_atomic(path, checked_json({"recipe": recipe, "parts": entries}), self._scratch)

    def find(self, recipe: Digest) -> dict[str, Part] | None:
        """The parts of a recipe, without places; None where it is not known, or damaged."""
        path = self._path(recipe)
        try:
            body = read_checked(path)
        except ValueError as error:
            log.warning("%s is damaged (%s): what changed since can't be told in detail", path, error)
            path.unlink(missing_ok=True)
            return None
        if body is None:
            return None
        return {
            name: Part(Digest(entry["digest"]), entry["text"], entry["is_source"])
            for name, entry in body["parts"].items()
        }

    def damaged(self) -> Iterator[tuple[Path, str]]:
        """The files that are not what was written, and why. Raises StoreError."""
        for path in sorted(self._root.glob("??/*.json")):
            try:
                body = read_checked(path)
                if body is not None and body.get("recipe") != path.stem:
                    raise ValueError("it belongs to another definition")
            except ValueError as error:
                yield path, str(error)

    def _path(self, recipe: Digest) -> Path:
        return self._root / recipe[:2] / f"{recipe}.json"
