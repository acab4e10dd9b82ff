"""The list of segments that there should be, so that one that is missing is noticed and not paid for again.

A segment is entered after it is there, and struck off before it is removed: a crash leaves a segment that is not listed
(the next update enters it), never an entry without a segment.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bqbuild.store.disk import checked_json, locked, read_checked, write_atomic

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a segment holds: how many calls, and what they cost in dollars."""

    calls: int
    cost: float


class Catalog:
    """`catalog.json` of a call log: segments by name."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.path = folder / "catalog.json"
        self._lock = folder / "catalog.lock"
        self._scratch = scratch
        self._known: tuple[tuple[int, int], dict[str, Entry]] | None = None

    def read(self) -> dict[str, Entry]:
        """The segments that there should be. A list that is damaged is as good as none: it is made again."""
        try:
            return self.load()
        except ValueError as error:
            log.warning("%s is damaged (%s) and will be made again", self.path, error)
            return {}

    def load(self) -> dict[str, Entry]:
        """As `read` does. Raises ValueError for a list that is damaged."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return {}
        seen = (stat.st_mtime_ns, stat.st_ino)
        if self._known is None or self._known[0] != seen:
            body = read_checked(self.path)
            segments = body["segments"] if body is not None else {}
            self._known = (seen, {name: Entry(**entry) for name, entry in segments.items()})
        return dict(self._known[1])

    def update(self, added: Mapping[str, Entry], removed: Collection[str] = ()) -> None:
        """Enter segments and strike others off. Raises StoreError."""
        if not added and not removed:
            return
        with locked(self._lock):
            current = self.read()
            wanted = {name: entry for name, entry in {**current, **added}.items() if name not in removed}
            if wanted != current or not self.path.exists():
                segments = {name: asdict(entry) for name, entry in wanted.items()}
                write_atomic(self.path, checked_json({"segments": segments}), self._scratch)
