"""Calls that no kept build used: how many they are, what they cost, and their removal.

A build lists the calls that it used beside its trace. A call that came after the last run that moved a pointer is kept
whatever uses it: its run may have been killed, and the next one needs it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from bqbuild.core.errors import StoreError
from bqbuild.core.records import Trace
from bqbuild.store.base import Pile
from bqbuild.store.catalog import Catalog, Entry
from bqbuild.store.journal import line_key
from bqbuild.store.segments import DATA, INDEX, Segment, has_sound_index, indexed_costs, remove_segment, write_segment
from bqbuild.store.traces import LocalTraces

LLM = "llm.model"
"""How the names of those components end that say which LLM a build asked."""


@dataclass(frozen=True, slots=True)
class CallGarbage:
    """The segments of the call log in `folder`."""

    folder: Path
    scratch: Path

    def used(self, traces: Collection[Trace], lists: LocalTraces) -> set[bytes]:
        """The keys of the calls that these builds used. Raises StoreError where one of them does not tell."""
        keys: set[bytes] = set()
        for trace in traces:
            if any(name.endswith(LLM) for name in trace.components):
                listed = lists.calls(trace.key)
                if listed is None:
                    raise StoreError(
                        f"it is not recorded which calls the build of `{trace.node}` used, so none can be deleted",
                        hint="an earlier release made it: `bqbuild run --full-refresh` makes it again from its calls",
                    )
                keys.update(listed)
        return keys

    def survey(self, used: Collection[bytes], since: float) -> Pile:
        """The calls that can go: how many, about how many bytes, and what they cost."""
        count, size, cost = 0, 0, 0.0
        for path in self._segments():
            costs = list(self._unused(path, used, since))
            listed = len(indexed_costs(path))
            count += len(costs)
            cost += sum(costs)
            size += round(path.stat().st_size * len(costs) / listed) if listed else 0
        return Pile("calls", count, size, round(cost, 9))

    def total(self) -> Pile:
        """All calls in segments."""
        paths = list(self._segments())
        costs = [cost for path in paths for cost in indexed_costs(path).values()]
        return Pile("calls", len(costs), sum(path.stat().st_size for path in paths), round(sum(costs), 9))

    def delete(self, used: Collection[bytes], since: float, others: Sequence[Path]) -> None:
        """Write the segments again without them. Raises StoreError while other processes use the store."""
        if others:
            raise StoreError(
                "calls are deleted only while no other process uses the store, and one does",
                hint="everything else was collected; run this again when the others are done",
            )
        catalog = Catalog(self.folder, self.scratch)
        for path in list(self._segments()):
            if not any(True for _ in self._unused(path, used, since)):
                continue
            segment = Segment(path)
            try:
                if segment.is_foreign or not segment.is_whole():
                    continue
                gone = set(self._unused_keys(path, used, since))
                kept = write_segment(
                    (line for line in segment.sound_lines() if line_key(line) not in gone),
                    self.folder / "segments",
                    self.scratch,
                )
            finally:
                segment.close()
            costs = indexed_costs(kept) if kept else {}
            entered = {_name(kept): Entry(len(costs), round(sum(costs.values()), 9))} if kept else {}
            catalog.update(entered, [_name(path)] if kept != path else [])
            if kept != path:
                remove_segment(path)

    def _segments(self) -> Iterator[Path]:
        """Those whose index can be trusted; the others are for `fsck`."""
        return (path for path in sorted((self.folder / "segments").glob(f"*{DATA}")) if has_sound_index(path))

    def _unused(self, path: Path, used: Collection[bytes], since: float) -> Iterator[float]:
        """What each call that can go cost."""
        costs = indexed_costs(path)
        return (costs[key] for key in self._unused_keys(path, used, since))

    def _unused_keys(self, path: Path, used: Collection[bytes], since: float) -> Iterator[str]:
        table = pq.read_table(path.with_name(_name(path) + INDEX), columns=["key", "created"])
        for key, created in zip(table.column("key").to_pylist(), table.column("created").to_pylist(), strict=True):
            if created < since and bytes.fromhex(key) not in used:
                yield key


def _name(segment: Path) -> str:
    return segment.name.removesuffix(DATA)
