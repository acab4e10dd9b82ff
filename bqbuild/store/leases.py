"""Leases in a folder: locks on files, which the system releases when their process ends, however it ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bqbuild.core.errors import StoreError
from bqbuild.core.hashing import digest
from bqbuild.store.disk import disk_errors, try_lock

WAIT_SECONDS = 0.05


class LocalLeases:
    """The leases of a folder store. They exclude threads of one process from each other too; don't nest a name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._closed = threading.Event()

    @contextmanager
    def hold(self, name: str) -> Iterator[bool]:
        """Wait for the lease and hold it. The value is True where another run had to be waited for.

        Raises StoreError where the store is closed meanwhile.
        """
        path = self._root / f"lease-{digest(name)}.lock"
        descriptor, waited = self._acquire(path)
        try:
            yield waited
        finally:
            with disk_errors(path):
                path.unlink(missing_ok=True)
            os.close(descriptor)

    def close(self) -> None:
        """Let those who wait give up."""
        self._closed.set()

    def _acquire(self, path: Path) -> tuple[int, bool]:
        """Lock the file that is at `path` now: the one we waited for was removed by its holder."""
        waited = False
        while True:
            with disk_errors(path):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            is_ours = False
            try:
                waited |= self._wait(descriptor, path)
                is_ours = _is_at(path, descriptor)
            finally:
                if not is_ours:
                    os.close(descriptor)
            if is_ours:
                return descriptor, waited

    def _wait(self, descriptor: int, path: Path) -> bool:
        waited = False
        with disk_errors(path):
            while not try_lock(descriptor):
                waited = True
                # Not a blocking lock: that one could not be interrupted in a worker thread.
                if self._closed.wait(WAIT_SECONDS):
                    raise StoreError("the store was closed while waiting for another run")
        return waited


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
