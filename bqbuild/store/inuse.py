"""What living processes use, so that garbage collection leaves it alone.

Each process appends the digests that it is about to look up or to write to `in-use` in its session folder, under the
shared lock of the gate, *before* it looks whether they are there. Garbage collection takes the gate for itself while it
reads the lists of all living processes and moves what nobody uses: a process finds either that its mark is honoured or
that the thing is gone, never first one and then the other. What is marked stays marked while the process lives: a
run with nothing to do takes the gate once, for everything its environment points to.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bqbuild.store.disk import disk_errors, try_lock

NAME = "in-use"
_WIDTH = 33


@contextmanager
def gate(locks: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold the gate: shared to mark, exclusive to collect. Raises StoreError."""
    path = locks / "gc.lock"
    with disk_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with disk_errors(path):
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


class InUse:
    """The list of this process."""

    def __init__(self, folder: Path, locks: Path) -> None:
        self._path = folder / NAME
        self._locks = locks
        self._known: set[str] = set()
        self._guard = threading.Lock()

    def mark(self, digests: Iterable[str]) -> None:
        """Say that these are in use, before looking whether they are there. Raises StoreError."""
        fresh = [digest for digest in digests if digest not in self._known]
        if not fresh:
            return
        with self._guard, gate(self._locks, exclusive=False), disk_errors(self._path):
            with self._path.open("ab") as file:
                file.write("".join(f"{digest}\n" for digest in fresh).encode())
            self._known.update(fresh)


def living(scratch: Path, locks: Path, own: Path) -> list[Path]:
    """The session folders of the other processes that live. Call it while holding the gate. Raises OSError."""
    return [folder for folder in sorted(scratch.glob("session-*")) if folder != own and _lives(folder, locks)]


def marked(folder: Path) -> set[str]:
    """What the process of a session folder uses. Raises OSError."""
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return set()
    # a line that is being written when its process is killed is shorter
    return {line.decode() for line in data.split(b"\n") if len(line) == _WIDTH - 1}


def _lives(folder: Path, locks: Path) -> bool:
    try:
        descriptor = os.open(locks / f"{folder.name}.lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)
