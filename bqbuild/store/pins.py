"""Pins: what a user wants to keep whatever the environments point to. One small file, `pins.json`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from bqbuild.core.hashing import Digest
from bqbuild.store.base import DamagedError
from bqbuild.store.disk import checked_json, locked, read_checked, write_atomic


class LocalPins:
    """The pins of a folder store: by name, the traces and tables that they keep."""

    def __init__(self, root: Path, *, scratch: Path, locks: Path) -> None:
        self.path = root / "pins.json"
        self._scratch = scratch
        self._lock = locks / "pins.lock"

    def read(self) -> dict[str, list[Digest]]:
        """All pins. Raises DamagedError."""
        try:
            body = read_checked(self.path)
        except ValueError as error:
            raise DamagedError(
                f"{self.path} is damaged: {error}", hint="delete it and pin again what you want to keep"
            ) from error
        return {} if body is None else {name: [Digest(item) for item in kept] for name, kept in body["pins"].items()}

    def change(self, added: Mapping[str, Collection[Digest]], removed: Collection[str] = ()) -> None:
        """Pin and unpin. Raises StoreError."""
        with locked(self._lock):
            pins = {name: kept for name, kept in self.read().items() if name not in removed}
            pins |= {name: sorted(set(kept)) for name, kept in added.items()}
            write_atomic(self.path, checked_json({"pins": pins}), self._scratch)
