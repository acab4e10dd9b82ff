"""Epochs: the times that answers were asked for again, on purpose.

    calls/epochs/00000003.json   what the third attempt was about, and whether it ended
    calls/epochs/00000003.keys   the calls that it replaces, a line each with a checksum; written before they are sent

A call bears the number of the attempt that bought it, and of several answers to one key the one with the highest
number counts. The keys tell which earlier builds are no longer what the call log gives. Attempts of one store exclude
each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from bqbuild.core.errors import StoreError
from bqbuild.core.records import CallKey
from bqbuild.store.base import Attempt, Replaced
from bqbuild.store.disk import checked_json, disk_errors, make_folder, read_checked, try_lock, write_atomic

_CHECK = 8


class LocalEpochs:
    """The epochs of a folder store."""

    def __init__(self, folder: Path, *, scratch: Path, locks: Path) -> None:
        self._folder = folder
        self._scratch = scratch
        self._lock = locks / "epochs.lock"

    def latest(self) -> int:
        """The number of the last attempt, 0 where there was none."""
        return max(self._numbers(), default=0)

    def settled(self) -> int:
        """The number up to which every attempt has ended, so that nothing more is replaced by it."""
        numbers = sorted(self._numbers())
        open_ones = [number for number in numbers if not self._read(number).get("ended")]
        if open_ones and self._end_dead(open_ones):
            open_ones = []
        return open_ones[0] - 1 if open_ones else max(numbers, default=0)

    def replaced(self, after: int) -> Replaced:
        """The calls that attempts after that number have replaced, or may have."""
        keys: set[CallKey] = set()
        is_certain = True
        for number in self._numbers():
            if number > after:
                found, is_whole = self._keys(number)
                keys |= found
                is_certain &= is_whole
        return Replaced(frozenset(keys), is_certain)

    def pending(self, work: Mapping[str, Any]) -> int | None:
        """The number of the first attempt at this work where it is begun and not finished."""
        begun: int | None = None
        for number in sorted(self._numbers()):
            document = self._read(number)
            if document.get("work") == work:
                begun = None if document.get("finished") else document["since"]
        return begun

    @contextmanager
    def begin(self, work: Mapping[str, Any], keys: Iterable[CallKey] = ()) -> Iterator[Attempt]:
        """One more attempt at `work`, which replaces `keys` and whatever is noted. It is unfinished until `finish`.

        Raises StoreError where another process is at such work in this store.
        """
        with disk_errors(self._lock):
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not try_lock(descriptor):
                raise StoreError(
                    "another process asks for answers again in this store", hint="wait until it is done, then run again"
                )
            number = self.latest() + 1
            since = self.pending(work) or number
            document = {"number": number, "since": since, "work": dict(work), "ended": False, "finished": False}
            with disk_errors(self._folder):
                make_folder(self._folder)
            self._write(document)
            attempt = _Attempt(number, since, self._folder / f"{number:08}.keys")
            try:
                attempt.note(keys)
                yield attempt
            finally:
                attempt.close()
                self._write({**document, "ended": True, "finished": attempt.is_finished})
        finally:
            os.close(descriptor)

    def repair(self) -> Iterator[tuple[Path, str]]:
        """The files that are not what was written, and why. What only told how an attempt went is written anew: that
        there was one still counts. Raises StoreError."""
        numbers = {int(path.stem) for path in self._folder.glob("*.keys") if path.stem.isdigit()} | {*self._numbers()}
        for number in sorted(numbers):
            path = self._folder / f"{number:08}.json"
            try:
                if read_checked(path) is None:
                    raise ValueError("it is missing")
            except ValueError as error:
                self._write(self._read(number) or _bare(number))
                yield path, str(error)
            if not self._keys(number)[1]:
                yield path.with_suffix(".keys"), "a line of it is broken"

    def _numbers(self) -> list[int]:
        return [int(path.stem) for path in self._folder.glob("*.json") if path.stem.isdigit()]

    def _read(self, number: int) -> dict[str, Any]:
        """What is known of an attempt; of one whose file is damaged only that it was there."""
        try:
            return read_checked(self._folder / f"{number:08}.json") or {}
        except ValueError:
            return _bare(number)

    def _write(self, document: Mapping[str, Any]) -> None:
        path = self._folder / f"{document['number']:08}.json"
        write_atomic(path, checked_json(document), self._scratch)

    def _end_dead(self, numbers: Iterable[int]) -> bool:
        """Write down that attempts whose process died have ended; False where one is still at work."""
        with disk_errors(self._lock):
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not try_lock(descriptor):
                return False
            for number in numbers:
                self._write({**self._read(number), "ended": True})
            return True
        finally:
            os.close(descriptor)

    def _keys(self, number: int) -> tuple[set[CallKey], bool]:
        """The keys of an attempt, and whether all of its lines are sound. A line that was torn was never sent."""
        path = self._folder / f"{number:08}.keys"
        with disk_errors(path):
            try:
                lines = path.read_bytes().split(b"\n")
            except FileNotFoundError:
                return set(), True
        sound = {CallKey(line[:-_CHECK].decode()) for line in lines[:-1] if _line(line[:-_CHECK]) == line}
        return sound, len(sound) == len(set(lines[:-1]))


class _Attempt:
    """The attempt of this process."""

    def __init__(self, number: int, since: int, path: Path) -> None:
        self.number = number
        self.since = since
        self.is_finished = False
        self._noted: set[CallKey] = set()
        self._path = path
        with disk_errors(path):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def note(self, keys: Iterable[CallKey], *, durably: bool = True) -> None:
        """Write down calls that are about to be replaced. Raises StoreError."""
        fresh = [key for key in dict.fromkeys(keys) if key not in self._noted]
        if not fresh:
            return
        self._noted.update(fresh)
        data = memoryview(b"".join(_line(key.encode()) + b"\n" for key in fresh))
        with disk_errors(self._path):
            while data:
                data = data[os.write(self._descriptor, data) :]
            if durably:
                os.fsync(self._descriptor)

    def finish(self) -> None:
        """All that was to be asked for again was."""
        self.is_finished = True

    def close(self) -> None:
        os.close(self._descriptor)


def _bare(number: int) -> dict[str, Any]:
    return {"number": number, "since": number, "ended": True}


def _line(key: bytes) -> bytes:
    return key + xxhash.xxh32_hexdigest(key).encode()
