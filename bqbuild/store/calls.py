"""The call log of a folder store: journals while processes run, segments when they have ended.

append   group commit into this process's journal (commit.py)
find     all segments and all journals, those of other processes included
close    the journals of this process, and of processes that died, become segments; many small segments become one
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bqbuild.core.records import CallKey, CallRecord
from bqbuild.store.base import DamagedError
from bqbuild.store.callrecords import record_from_json, record_to_json
from bqbuild.store.commit import GroupCommit
from bqbuild.store.disk import disk_errors, try_lock
from bqbuild.store.journal import JournalReader, encode_line
from bqbuild.store.segments import DATA, Segment, remove_segment, write_segment

log = logging.getLogger(__name__)

SMALL_BYTES = 8 << 20
MANY_SMALL = 32


class LocalCallLog:
    """The calls of a folder store. Where a key was answered twice, the later answer counts."""

    def __init__(self, folder: Path, *, scratch: Path) -> None:
        self._folder = folder
        self._segments_folder = folder / "segments"
        self._scratch = scratch
        self._commit = GroupCommit(folder, scratch)
        self._guard = threading.Lock()
        self._journals: dict[Path, JournalReader] = {}
        self._segments: dict[Path, Segment] = {}
        self._used = False

    def find(self, keys: Sequence[CallKey]) -> dict[CallKey, CallRecord]:
        """The recorded calls among `keys`, looked up in bulk.

        Raises DamagedError where a key is not found but may have been in a file that is damaged: it would be paid for
        again.
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
            self._refuse_damage({key for key in wanted if key not in found})
        return {CallKey(key): record_from_json(body) for key, body in found.items()}

    async def append(self, record: CallRecord) -> None:
        """Record a call; returns when it is durable. Raises StoreError (a full disk …)."""
        self._used = True
        await self._commit.append(encode_line(record_to_json(record)))

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
        # Journals are listed before segments: one that becomes the other meanwhile is seen twice rather than never.
        journals = set(self._folder.glob("journal-*.jsonl"))
        segments = set(self._segments_folder.glob(f"*{DATA}"))
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

    def _compact(self) -> None:
        try:
            self._adopt_journals()
            self._merge_small_segments()
        except OSError as error:
            # The journals stay as they are, and stay readable; a later process tries again.
            log.warning("the call log in %s was not compacted: %s", self._folder, error)

    def _readers(self) -> list[JournalReader | Segment]:
        return [*self._segments.values(), *self._journals.values()]

    def _refuse_damage(self, missing: set[str]) -> None:
        """Missing keys that a damaged file had, or may have had, are not missing: they would be paid for twice."""
        for segment in self._segments.values():
            damaged = missing & segment.lost
            if damaged:
                raise DamagedError(
                    f"{segment.path} is damaged: {len(damaged)} recorded calls worth ${segment.cost_of(damaged):.6g} "
                    "cannot be read",
                    hint="restore the file; or move it out of the store to pay for its calls again",
                )
        for reader in self._readers():
            if missing and reader.damage:
                raise DamagedError(
                    f"{reader.damage} is damaged: {len(missing)} calls that are needed may have been recorded there",
                    hint="restore it; or take it out of the store to pay for the calls again",
                )

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
            whole = [segment for segment in segments if segment.is_whole()]
            lines = (line for segment in whole for line in segment.sound_lines())
            merged = write_segment(lines, self._segments_folder, self._scratch)
            for segment in whole:
                if segment.path != merged:
                    remove_segment(segment.path)
        finally:
            for segment in segments:
                segment.close()


def _keep_latest(found: dict[str, dict[str, Any]], body: dict[str, Any]) -> None:
    known = found.get(body["key"])
    if known is None or _rank(body) >= _rank(known):
        found[body["key"]] = body


def _rank(body: dict[str, Any]) -> tuple[int, float, str]:
    """Later answers win, by epoch and then by time (clocks differ); two of one moment are told apart by what they say,
    so that every reader picks the same."""
    return body.get("epoch", 0), body["created"], body["text"]
