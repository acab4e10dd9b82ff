"""What is done about calls that were recorded and cannot be read: they are told apart from calls that were never made.

Nothing here pays: a damaged file is named with what its calls cost. Only where a user says `--repay` is it set aside,
with what can be read of it kept, so that what it lost counts as never made.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from bqbuild.store.base import DamagedError
from bqbuild.store.catalog import Catalog
from bqbuild.store.disk import make_folder, try_lock
from bqbuild.store.journal import JournalReader
from bqbuild.store.segments import DATA, INDEX, Segment, indexed_costs, write_segment

REPAY = "restore the file from a copy; or run with --repay, which pays for the calls again"


@dataclass(frozen=True, slots=True)
class CallDamage:
    """A damaged file of the log: the keys that are needed and that it had (or, where `cost` is None, may have had)."""

    path: Path
    shown: str
    keys: frozenset[str]
    cost: float | None
    problem: str = "is damaged"


def refused(damage: Sequence[CallDamage]) -> DamagedError:
    """The error that names the damaged files and what it costs to replace their calls."""
    return DamagedError("; ".join(_sentence(each) for each in damage), hint=REPAY)


def _sentence(damage: CallDamage) -> str:
    count = f"{len(damage.keys):,} {{}}call{'' if len(damage.keys) == 1 else 's'}"
    if damage.cost is None:
        return f"{damage.shown} {damage.problem}: {count.format('')} that the run needs may have been recorded there"
    return f"{damage.shown} {damage.problem}: {count.format('recorded ')} worth ${damage.cost:.6g} cannot be read"


def missing_segments(folder: Path, catalog: Catalog, wanted: Collection[str]) -> Iterator[CallDamage]:
    """The segments that should be there and are not, where they had or may have had the keys."""
    for name in gone(folder, catalog):
        path = folder / f"{name}{DATA}"
        costs = indexed_costs(path)
        if not costs:  # its index is gone as well
            yield CallDamage(path, str(path), frozenset(wanted), None, "is missing")
        elif lost := costs.keys() & wanted:
            yield CallDamage(path, str(path), frozenset(lost), sum(costs[key] for key in lost), "is missing")


def gone(folder: Path, catalog: Catalog) -> list[str]:
    """The names of the segments that are listed and not there."""

    def absent(names: Iterable[str]) -> list[str]:
        return sorted(name for name in names if not (folder / f"{name}{DATA}").exists())

    # Another process may have merged some since the list was read: those are no longer on it.
    return absent(catalog.read()) if absent(catalog.read()) else []


def set_segments_aside(paths: Collection[Path], segments: Path, scratch: Path, damaged: Path) -> Path | None:
    """Write what can be read of damaged or missing segments as one other, move their files to `damaged`; its path.

    What lies in the place of another segment goes into it as well: written by itself it could be given a name that a
    misplaced one holds. Raises OSError.
    """
    opened = [Segment(path) for path in segments.glob(f"*{DATA}")]
    try:
        wanted = [segment for segment in opened if segment.path in paths or segment.is_foreign]
        kept = write_segment((line for segment in wanted for line in segment.sound_lines()), segments, scratch)
    finally:
        for segment in opened:
            segment.close()
    for path in paths:
        if path != kept:
            for each in (path, path.with_name(path.name.removesuffix(DATA) + INDEX)):
                _move(each, damaged)
    return kept


def set_journal_aside(path: Path, segments: Path, scratch: Path, damaged: Path) -> Path | None:
    """The same for a journal; one that a living process writes is left alone."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        if not try_lock(descriptor):
            return None
        journal = JournalReader(path)
        try:
            kept = write_segment(journal.sound_lines(), segments, scratch)
        finally:
            journal.close()
        _move(path, damaged)
        return kept
    finally:
        os.close(descriptor)


def _move(path: Path, damaged: Path) -> None:
    if path.exists():
        make_folder(damaged)
        path.rename(damaged / f"{uuid4().hex[:8]}-{path.name}")
