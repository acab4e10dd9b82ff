"""Environments in a folder: `<project>/<environment>.json`, a set of pointers that moves under a lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote, unquote

from bqbuild.core.errors import StoreError
from bqbuild.core.hashing import Digest
from bqbuild.core.records import NodeName
from bqbuild.store.base import DamagedError, Pointer
from bqbuild.store.disk import checked_json, locked, read_checked, write_atomic


class LocalEnvironments:
    """The environments of a folder store."""

    def __init__(self, root: Path, *, scratch: Path, locks: Path, mark: Callable[[Iterable[str]], None]) -> None:
        self._root = root
        self._scratch = scratch
        self._locks = locks
        self._mark = mark

    def read(self, environment: str) -> dict[NodeName, Pointer]:
        """The pointers of `<project>/<environment>`; empty where there is none yet. Raises DamagedError."""
        path = self.path(environment)
        try:
            body = read_checked(path)
            if body is not None and body["environment"] != environment:
                raise ValueError("it belongs to another environment")
        except ValueError as error:
            raise DamagedError(
                f"{path} is damaged: {error}",
                hint="`bqbuild fsck` puts it back to the last run; tables and calls are still in the store",
            ) from error
        if body is None:
            return {}
        pointers = pointers_from_json(body["pointers"])
        # all at once: whoever reads an environment is about to look these up
        self._mark(digest for pointer in pointers.values() for digest in (pointer.trace, *pointer.tables.values()))
        return pointers

    def move(self, environment: str, pointers: Mapping[NodeName, Pointer | None]) -> bool:
        """Set (or with None remove) pointers, atomically, keeping those that others moved meanwhile; whether any
        points elsewhere now.

        Raises StoreError.
        """
        path = self.path(environment)
        with locked(self._locks / f"environment-{quote(environment, safe='')}.lock"):
            current = self.read(environment)
            moved = {**current, **pointers}
            kept = {name: pointer for name, pointer in moved.items() if pointer is not None}
            if kept == current:
                return False
            document = {"environment": environment, "pointers": pointers_to_json(kept)}
            write_atomic(path, checked_json(document), self._scratch)
            return True

    def names(self) -> list[str]:
        """All environments of the store, sorted."""
        return sorted(
            environment_name(path.relative_to(self._root).with_suffix("")) for path in self._root.glob("*/*.json")
        )

    def moved_at(self) -> int:
        """When any pointer of the store moved last, in nanoseconds; 0 where none did."""
        return max((path.stat().st_mtime_ns for path in self._root.glob("*/*.json")), default=0)

    def path(self, environment: str) -> Path:
        """The file of an environment. Raises StoreError for what names none."""
        project, name = environment_parts(environment)
        return self._root / project / f"{name}.json"


def environment_parts(environment: str) -> tuple[str, str]:
    """Project and environment, each as one harmless part of a path. Raises StoreError."""
    project, slash, name = environment.partition("/")
    if not (project and slash and name):
        raise StoreError(f"`{environment}` does not name an environment", hint="write <project>/<environment>")
    return _file_name(project), _file_name(name)


def environment_name(path: PurePath) -> str:
    """The environment that `environment_parts` made these parts of."""
    return "/".join(unquote(part) for part in path.parts)


def pointers_to_json(pointers: Mapping[NodeName, Pointer]) -> dict[str, Any]:
    """Pointers as the store's files have them."""
    return {name: {"trace": pointer.trace, "tables": dict(pointer.tables)} for name, pointer in pointers.items()}


def pointers_from_json(entries: Mapping[str, Any]) -> dict[NodeName, Pointer]:
    """What `pointers_to_json` wrote."""
    return {
        NodeName(name): Pointer(Digest(entry["trace"]), {side: Digest(d) for side, d in entry["tables"].items()})
        for name, entry in entries.items()
    }


def _file_name(name: str) -> str:
    """`name` as one harmless part of a path: `..` and `/` cannot leave the folder."""
    return quote(name, safe="").replace(".", "%2E")
