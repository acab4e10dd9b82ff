"""Looks at every file of the call log. An index is made again from its data; lost calls are named with what they cost.

Damaged calls stay where they are, because they can be restored from a copy, unless the user says `--repay`: then what
can be read is kept, and what is lost counts as never made.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bqbuild.store.base import Damage
from bqbuild.store.calldamage import gone, set_journal_aside, set_segments_aside
from bqbuild.store.catalog import Catalog
from bqbuild.store.journal import JournalReader
from bqbuild.store.segments import DATA, INDEX, Segment, has_sound_index, indexed_costs, remove_segment, write_segment

log = logging.getLogger(__name__)

KEPT = "left in place; restore it from a copy, or `bqbuild fsck --repay` gives up what it lost"
GIVEN_UP = "set aside; what could be read is kept, the next run pays for what it needs of the rest"
RECOVERED = "set aside; all its calls could be read, and are recorded in another file now"
MADE_AGAIN = "made again from the calls, which are all there"


@dataclass(frozen=True, slots=True)
class CallHealth:
    """Checks the call log in `folder`."""

    folder: Path
    scratch: Path
    damaged: Path

    @property
    def segments(self) -> Path:
        """Where the segments are."""
        return self.folder / "segments"

    def check(self, *, repay: bool = False) -> Iterator[Damage]:
        """Every file that is not what was written. Raises OSError, StoreError."""
        catalog = Catalog(self.folder, self.scratch)
        try:
            catalog.load()
        except ValueError as error:
            catalog.path.unlink()
            yield Damage("calls", str(catalog.path), str(error), "made again from the segments that are there")
        for path in sorted(self.folder.glob("journal-*.jsonl")):
            yield from self._check_journal(path, repay)
        readable, whole = self._read()
        yield from self._check_segments(readable, whole, catalog, repay)
        for path in sorted(whole):
            yield from self._check_index(path, catalog)

    def _read(self) -> tuple[dict[Path, set[str]], set[Path]]:
        """The keys that can be read of each segment, and the segments that are as written and where they belong."""
        readable: dict[Path, set[str]] = {}
        whole: set[Path] = set()
        for path in self.segments.glob(f"*{DATA}"):
            segment = Segment(path)
            try:
                readable[path] = segment.keys()
                if not segment.is_foreign and segment.is_whole():
                    whole.add(path)
            finally:
                segment.close()
        return readable, whole

    def _check_journal(self, path: Path, repay: bool) -> Iterator[Damage]:
        journal = JournalReader(path)
        try:
            journal.refresh()
            broken = journal.broken
            problem = journal.damage
        finally:
            journal.close()
        if problem is None:
            return
        action = KEPT
        if repay and set_journal_aside(path, self.segments, self.scratch, self.damaged):
            action = GIVEN_UP
        yield Damage("calls", str(path), f"{problem.partition(' of ')[0]} is broken", action, calls=broken)

    def _check_segments(
        self, readable: Mapping[Path, set[str]], whole: Collection[Path], catalog: Catalog, repay: bool
    ) -> Iterator[Damage]:
        """Those that are damaged, in the place of another, or missing. Where nothing is lost they are put right."""
        known: set[str] = set().union(*readable.values())
        missing = [self.segments / f"{name}{DATA}" for name in gone(self.segments, catalog)]
        found: list[Damage] = []
        done: list[Path] = []
        for path in sorted({*(readable.keys() - whole), *missing}):
            costs = indexed_costs(path)
            lost = costs.keys() - known
            entry = catalog.read().get(path.name.removesuffix(DATA))
            calls, cost = (len(lost), round(sum(costs[key] for key in lost), 9)) if costs else (None, None)
            if not costs and path in missing and entry is not None:
                calls, cost = entry.calls, entry.cost
            is_safe = bool(costs) and not lost
            if is_safe or repay:
                done.append(path)
            action = RECOVERED if is_safe else GIVEN_UP if repay else KEPT
            problem = "it is missing" if path in missing else _problem(path)
            found.append(Damage("calls", str(path), problem, action, calls=calls, cost=cost))
        if done:
            kept = set_segments_aside(done, self.segments, self.scratch, self.damaged)
            catalog.update({}, [path.name.removesuffix(DATA) for path in done if path != kept])
        yield from found

    def _check_index(self, path: Path, catalog: Catalog) -> Iterator[Damage]:
        if has_sound_index(path):
            return
        segment = Segment(path)
        try:
            made = write_segment(segment.sound_lines(), self.segments, self.scratch)
        finally:
            segment.close()
        if made != path:
            catalog.update({}, [path.name.removesuffix(DATA)])
            remove_segment(path)
        index = path.with_name(path.name.removesuffix(DATA) + INDEX)
        yield Damage("index", str(index), "it is missing or damaged", MADE_AGAIN)


def _problem(path: Path) -> str:
    segment = Segment(path)
    try:
        return "it has the calls of another segment" if segment.is_foreign else "its checksum does not match"
    finally:
        segment.close()
