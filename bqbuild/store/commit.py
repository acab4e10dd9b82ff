"""Makes appended calls durable in groups: one thread writes and fsyncs, many coroutines wait.

    append() ── line, future ──> queue ──> thread: all that waits ── write, fsync ──> futures resolved

A group is what arrived while the group before it was being written, and within `GATHER_SECONDS` after its first call.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bqbuild.core.errors import StoreError
from bqbuild.store.disk import FULL, disk_error, disk_errors, no_space
from bqbuild.store.journal import JournalWriter

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.01
GROUP_BYTES = 16 << 20
RESERVE_BYTES = 4 << 20

MARGIN_BYTES = 1 << 20
"""Space that calls leave to what a run writes at its end: pointers, results, the warehouse."""
FIRST_BYTES = 512 << 10
"""What an answer is taken to need as long as none has come."""
SMALLEST_BYTES = 16 << 10
PLENTY_BYTES = 4 << 30
PLENTY = 1 << 30
LOOK_SECONDS = 1.0
"""How often it is looked how much is free where there is plenty."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    line: bytes
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class GroupCommit:
    """Owns this process's journal and the thread that writes it. Some space is kept in reserve, so that the answers
    in flight when the disk fills up are still kept; `room` then says that there is none."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder = folder
        self._scratch = scratch
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()
        self._journal: JournalWriter | None = None
        self._reserve = scratch / "reserve"
        self._full: StoreError | None = None
        self._largest = 0
        self._plenty_until = 0.0

    def room(self) -> int:
        """How many answers the disk has room for, those on their way included.

        Raises StoreError where it has room for none: an answer that cannot be kept must not be paid for.
        """
        if self._full is not None:
            raise StoreError(self._full.message, hint=self._full.hint)
        if time.monotonic() < self._plenty_until:
            return PLENTY
        with disk_errors(self._folder):
            disk = os.statvfs(self._folder)
        if not disk.f_blocks:  # a file system that does not tell
            return PLENTY
        free = disk.f_bavail * disk.f_frsize + (RESERVE_BYTES if self._reserve.exists() else 0)
        if free > PLENTY_BYTES:
            self._plenty_until = time.monotonic() + LOOK_SECONDS
        most = max(2 * self._largest, SMALLEST_BYTES) if self._largest else FIRST_BYTES
        room = (free - MARGIN_BYTES) // most
        if room < 1:
            raise no_space(self._folder, f"{free >> 10:,} KB are free, too little to keep another answer")
        return room

    async def append(self, line: bytes) -> None:
        """Return when the line is durable. Raises StoreError where it is not."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="call-log", daemon=True)
                self._thread.start()
            self._queue.put(_Waiting(line, loop, done))
        await done

    def close(self) -> None:
        """Write what waits, and give up the journal. Later appends begin another one."""
        with self._start:
            if self._thread is not None:
                self._queue.put(None)
                self._thread.join()
                self._thread = None
        self._drop_journal()
        self._reserve.unlink(missing_ok=True)
        self._full = None

    def _work(self) -> None:
        more = True
        while more:
            group, more = self._next_group()
            if group:
                self._write(group)

    def _next_group(self) -> tuple[list[_Waiting], bool]:
        """What waits, and whether to go on; blocks until something does."""
        group: list[_Waiting] = []
        size = 0
        until = float("inf")
        while size < GROUP_BYTES:
            try:
                item = self._queue.get(timeout=max(0.0, until - time.monotonic()) if group else None)
            except queue.Empty:
                break
            if item is None:
                return group, False
            if not group:
                until = time.monotonic() + GATHER_SECONDS
            group.append(item)
            size += len(item.line)
        return group, True

    def _write(self, group: Sequence[_Waiting]) -> None:
        """Write and fsync a group: in a journal of its own where the one in use has failed."""
        self._largest = max(self._largest, *(len(waiting.line) for waiting in group))
        try:
            self._append([waiting.line for waiting in group])
        except OSError as error:
            self._make_room(error)
            for waiting in group:
                # one by one: where not all fit, as many are kept as do
                _resolve([waiting], self._write_again(waiting.line))
        else:
            _resolve(group, None)

    def _make_room(self, error: OSError) -> None:
        self._drop_journal()
        if error.errno not in FULL:
            log.warning("the journal in %s failed: %s", self._folder, error)
        elif self._reserve.exists():
            self._reserve.unlink()
            self._full = disk_error(error, self._folder)

    def _write_again(self, line: bytes) -> StoreError | None:
        try:
            self._append([line])
        except OSError as error:
            self._drop_journal()
            return disk_error(error, self._folder)
        return None

    def _drop_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _append(self, lines: Sequence[bytes]) -> None:
        if self._journal is None:
            self._journal = JournalWriter(self._folder, self._scratch)
            if self._full is None:
                _reserve(self._reserve)
        self._journal.append(lines)


def _reserve(path: Path) -> None:
    """Take space that can be given back; where there is none to take, there is none in reserve."""
    try:
        with path.open("wb") as file:
            file.write(bytes(RESERVE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)


def _resolve(group: Sequence[_Waiting], error: StoreError | None) -> None:
    """Tell the coroutines that wait, in as few calls into their loops as there are loops."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for waiting in group:
        by_loop.setdefault(waiting.loop, []).append(waiting.done)
    for loop, futures in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, futures, error)
        except RuntimeError:
            log.warning("calls were recorded after the run that made them had ended")


def _settle(futures: Sequence[asyncio.Future[None]], error: StoreError | None) -> None:
    for future in futures:
        if future.done():  # cancelled meanwhile; the call is recorded all the same
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(StoreError(error.message, hint=error.hint))
