"""The call log of a folder store: journals while processes run, segments when they have ended.

append   group commit into this process's journal (commit.py)
find     all segments and all journals, those of other processes included
close    the journals of this process, and of processes that died, become segments; many small segments become one

What happens to a log that is damaged is in calldamage.py.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bqbuild.core.errors import StoreError
from bqbuild.core.records import CallKey, CallRecord
from bqbuild.store.calldamage import CallDamage, missing_segments, refused, set_journal_aside, set_segments_aside
from bqbuild.store.callrecords import record_from_json, record_to_json
from bqbuild.store.catalog import Catalog, Entry
from bqbuild.store.commit import GroupCommit
from bqbuild.store.disk import FULL, disk_errors, try_lock
from bqbuild.store.journal import JournalReader, encode_line
from bqbuild.store.segments import DATA, Segment, indexed_costs, remove_segment, write_segment

log = logging.getLogger(__name__)

SMALL_BYTES = 8 << 20
MANY_SMALL = 32
SETTLED_NS = 100_000_000
"""How long a folder must be unchanged for its time of change to tell of the next one: clocks of file systems tick."""


class LocalCallLog:
    """The calls of a folder store. Where a key was answered twice, the later answer counts."""

    def __init__(self, folder: Path, *, scratch: Path, damaged: Path) -> None:
        self._folder = folder
        self._segments_folder = folder / "segments"
        self._damaged = damaged
        self._catalog = Catalog(folder, scratch)
        self._scratch = scratch
        self._commit = GroupCommit(folder, scratch)
        self._guard = threading.Lock()
        self._journals: dict[Path, JournalReader] = {}
        self._segments: dict[Path, Segment] = {}
        self._listed: tuple[tuple[int, ...], tuple[set[Path], set[Path]]] | None = None
        self._used = False

    def find(self, keys: Sequence[CallKey], *, repay: bool = False) -> dict[CallKey, CallRecord]:
        """The recorded calls among `keys`, looked up in bulk.

        Raises DamagedError where a key is not found but may have been in a file that is damaged: it would be paid for
        again. With `repay` that is what the user wants: such files are set aside, and what they lost was never made.
        """
        if not keys:
            return {}
        wanted = list(dict.fromkeys(keys))
        with self._guard, disk_errors(self._folder):
            self._refresh()
            found: dict[str, dict[str, Any]] = {}
            for segment in self._segments.values():
                for body in segment.find(wanted):
                    _keep_latest(found, body)
            for journal in self._journals.values():
                for body in journal.find(wanted):
                    _keep_latest(found, body)
            damage = self._damage({key for key in wanted if key not in found})
            if damage and not repay:
                raise refused(damage)
            for each in damage:
                self._set_aside(each)
        return {CallKey(key): record_from_json(body) for key, body in found.items()}

    async def append(self, record: CallRecord) -> None:
        """Record a call; returns when it is durable. Raises StoreError (a full disk …)."""
        self._used = True
        await self._commit.append(encode_line(record_to_json(record)))

    def room(self) -> int:
        """How many answers there is room for, those on their way included. Raises StoreError where for none."""
        return self._commit.room()

    def close(self) -> None:
        """Flush, and compact the journal into a segment. Raises StoreError."""
        with disk_errors(self._folder):
            self._commit.close()
        if self._used:
            self._compact()
        with self._guard:
            for reader in self._readers():
                reader.close()
            self._journals, self._segments, self._used = {}, {}, False

    def _refresh(self) -> None:
        self._used = True
        journals, segments = self._files()
        for path in journals - self._journals.keys():
            try:
                self._journals[path] = JournalReader(path)
            except FileNotFoundError:
                segments = set(self._segments_folder.glob(f"*{DATA}"))
        for journal in self._journals.values():
            journal.refresh()
        for path in segments - self._segments.keys():
            try:
                self._segments[path] = Segment(path)
            except FileNotFoundError:
                continue
        for path in self._journals.keys() - journals:
            self._journals.pop(path).close()
        for path in self._segments.keys() - segments:
            self._segments.pop(path).close()

    def _files(self) -> tuple[set[Path], set[Path]]:
        """The journals and segments that there are. Listed anew where a folder has changed since, or had changed so
        shortly before that the next change may bear the same time."""
        changed = tuple(os.stat(folder).st_mtime_ns for folder in (self._folder, self._segments_folder))
        if self._listed is None or self._listed[0] != changed:
            is_settled = time.time_ns() - max(changed) > SETTLED_NS
            # Journals are listed before segments: one that becomes the other meanwhile is seen twice rather than never.
            journals = set(self._folder.glob("journal-*.jsonl"))
            files = (journals, set(self._segments_folder.glob(f"*{DATA}")))
            self._listed = (changed if is_settled else (), files)
        return self._listed[1]

    def _compact(self) -> None:
        try:
            self._adopt_journals()
            self._enter_segments()
            self._merge_small_segments()
        except (OSError, StoreError) as error:
            # The journals stay as they are, and stay readable; a later process tries again.
            cause = error if isinstance(error, OSError) else error.__cause__
            is_full = isinstance(cause, OSError) and cause.errno in FULL  # whatever filled it up has said so
            log.log(
                logging.DEBUG if is_full else logging.WARNING,
                "the call log in %s was not compacted: %s",
                self._folder,
                error,
            )

    def _readers(self) -> list[JournalReader | Segment]:
        return [*self._segments.values(), *self._journals.values()]

    def _damage(self, missing: set[str]) -> list[CallDamage]:
        """The files that had, or may have had, calls that are not found."""
        if not missing:
            return []
        found = []
        for path, segment in self._segments.items():
            lost = missing & segment.lost
            if lost:
                found.append(CallDamage(path, str(path), frozenset(lost), segment.cost_of(lost)))
            elif segment.damage:
                found.append(CallDamage(path, segment.damage, frozenset(missing), None))
        for path, journal in self._journals.items():
            if journal.damage:
                found.append(CallDamage(path, journal.damage, frozenset(missing), None))
        return found + list(missing_segments(self._segments_folder, self._catalog, missing))

    def _set_aside(self, damage: CallDamage) -> None:
        """Keep what can be read of a damaged file, and move the file out of the way."""
        places = (self._segments_folder, self._scratch, self._damaged)
        if damage.path in self._journals:
            # one that its process still writes has to stay: what it lost is not asked for again all the same
            set_journal_aside(damage.path, *places)
            return
        kept = set_segments_aside([damage.path], *places)
        entered = {} if kept is None else {_name(kept): _entry(kept)}
        self._catalog.update(entered, [_name(damage.path)] if kept != damage.path else [])
        if damage.path in self._segments:
            self._segments.pop(damage.path).close()

    def _adopt_journals(self) -> None:
        """Turn every journal that nobody writes into a segment. Damaged ones stay, for a human to look at."""
        for path in sorted(self._folder.glob("journal-*.jsonl")):
            try:
                descriptor = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            try:
                if try_lock(descriptor) and path.exists() and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    self._adopt(path)
            finally:
                os.close(descriptor)

    def _adopt(self, path: Path) -> None:
        journal = JournalReader(path)
        try:
            journal.refresh()
            if journal.damage is None:
                write_segment(journal.sound_lines(), self._segments_folder, self._scratch)
                path.unlink()
        finally:
            journal.close()

    def _enter_segments(self) -> None:
        """Enter segments that the catalog does not have: those of just now, and of releases that kept none."""
        known = self._catalog.read()
        paths = [path for path in self._segments_folder.glob(f"*{DATA}") if _name(path) not in known]
        self._catalog.update({_name(path): _entry(path) for path in paths})

    def _merge_small_segments(self) -> None:
        """Make one segment of many small ones, so that a store of a thousand runs is as quick as one of ten."""
        descriptor = os.open(self._folder / "merge.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not try_lock(descriptor):
                return
            found = sorted((path.stat().st_mtime_ns, path) for path in self._segments_folder.glob(f"*{DATA}"))
            small = [path for _, path in found if path.stat().st_size < SMALL_BYTES]
            if len(small) >= MANY_SMALL:
                self._merge(small)
        finally:
            os.close(descriptor)

    def _merge(self, paths: Sequence[Path]) -> None:
        segments = [Segment(path) for path in paths]
        try:
            whole = [segment for segment in segments if not segment.is_foreign and segment.is_whole()]
            lines = (line for segment in whole for line in segment.sound_lines())
            merged = write_segment(lines, self._segments_folder, self._scratch)
            if merged is None:
                return
            gone = [segment.path for segment in whole if segment.path != merged]
            self._catalog.update({_name(merged): _entry(merged)}, [_name(path) for path in gone])
            for path in gone:
                remove_segment(path)
        finally:
            for segment in segments:
                segment.close()


def _name(segment: Path) -> str:
    return segment.name.removesuffix(DATA)


def _entry(segment: Path) -> Entry:
    costs = indexed_costs(segment)
    return Entry(len(costs), round(sum(costs.values()), 9))


def _keep_latest(found: dict[str, dict[str, Any]], body: dict[str, Any]) -> None:
    known = found.get(body["key"])
    if known is None or _rank(body) >= _rank(known):
        found[body["key"]] = body


def _rank(body: dict[str, Any]) -> tuple[int, float, str]:
    """Later answers win, by epoch and then by time (clocks differ); two of one moment are told apart by what they say,
    so that every reader picks the same."""
    return body.get("epoch", 0), body["created"], body["text"]
