"""Journals of the call log: files of lines, one call a line, each with its checksum; one journal a process.

    {"check":"<16 hex: xxh3-64 of what follows>","call":{"key":"<32 hex>", …}}

Its writer holds the journal's lock, so a journal that can be locked is one that a dead process left. A process that is
killed leaves at most one broken line, the last; a broken line with others after it is damage.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import xxhash

from bqbuild.store.disk import fsync, try_lock
from bqbuild.store.keyindex import KeyIndex

_HEAD = b'{"check":"'
_MIDDLE = b'","call":'
_TAIL = b"}\n"
_CALL_AT = len(_HEAD) + 16 + len(_MIDDLE)
_KEY_AT = _CALL_AT + len(b'{"key":"')
_CHUNK = 1 << 20
_ZEROS = bytes(64)
_GUESS = 1 << 14
"""Bytes read for a line at first; most calls are shorter."""


def encode_line(body: Mapping[str, Any]) -> bytes:
    """The line of a call. `body` begins with its key. Raises TypeError for what JSON cannot hold."""
    try:
        call = orjson.dumps(body, default=_plain)
    except TypeError:
        # Lone surrogates, which a hostile reply can smuggle in: neither JSON nor Parquet can hold them.
        call = orjson.dumps(_without_surrogates(body), default=_plain)
    return b"".join((_HEAD, xxhash.xxh3_64_hexdigest(call).encode(), _MIDDLE, call, _TAIL))


def is_sound(line: bytes) -> bool:
    """Whether a line, its newline included, is what was written."""
    if not (line.startswith(_HEAD) and line.endswith(_TAIL)):
        return False
    return xxhash.xxh3_64_hexdigest(line[_CALL_AT : -len(_TAIL)]).encode() == line[len(_HEAD) : len(_HEAD) + 16]


def line_key(line: bytes) -> str:
    """The key of a sound line."""
    return line[_KEY_AT : _KEY_AT + 32].decode()


def decode_line(line: bytes) -> dict[str, Any]:
    """The call of a sound line."""
    body: dict[str, Any] = orjson.loads(line[_CALL_AT : -len(_TAIL)])
    return body


class JournalWriter:
    """The journal that this process writes. A journal that failed once is not written again."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        """Raises OSError."""
        name = f"journal-{uuid4().hex}.jsonl"
        self.path = folder / name
        hidden = scratch / name
        self._descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        self._size = 0
        try_lock(self._descriptor)
        # Locked before it has its name: nobody can take it for a dead process's.
        hidden.rename(self.path)
        fsync(folder)

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines and make them durable. Raises OSError; the lines may then be there or not."""
        data = memoryview(b"".join(lines))
        size = self._size + len(data)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError:
            # half a line is of no use, and the space that it takes may be what the next one lacks
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size = size

    def close(self) -> None:
        """Give up the lock; a journal that has nothing in it is removed."""
        if not self._size:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


class JournalReader:
    """Follows a journal that may still grow. Its file stays readable here when its owner has removed it.

    `damage` says what is wrong with it, if anything is; `broken` counts the lines that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self.path = path
        self.damage: str | None = None
        self.broken = 0
        self._descriptor = os.open(path, os.O_RDONLY)
        self._index = KeyIndex()
        self._end = 0
        self._count = 0
        self._lost: int | None = None

    def refresh(self) -> None:
        """Take in the whole lines that were added. Raises OSError."""
        if os.fstat(self._descriptor).st_size <= self._end:
            return
        for start, line in self._lines_from(self._end):
            self._end = start + len(line)
            self._count += 1
            if is_sound(line):
                if self._lost:
                    self._say_damaged(self._lost)
                self._index.add(line_key(line), start)
            elif _ZEROS in line:
                # A machine that lost its power leaves zeros at the end; with calls after them they are damage.
                self._lost = self._lost or self._count
                self.broken += 1
            else:
                self._say_damaged(self._count)
                self.broken += 1

    def find(self, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The calls among `keys`, as JSON objects. Raises OSError."""
        for key, start in sorted(self._index.find(keys), key=lambda pair: pair[1]):
            line = self._line_at(start)
            if not is_sound(line):
                self._say_damaged(None)
            elif line_key(line) == key:
                yield decode_line(line)

    def sound_lines(self) -> Iterator[bytes]:
        """All sound lines, from the first. Raises OSError."""
        return (line for _, line in self._lines_from(0) if is_sound(line))

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _say_damaged(self, line: int | None) -> None:
        self.damage = self.damage or (f"line {line} of {self.path}" if line else str(self.path))

    def _lines_from(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Positions and whole lines; what follows the last newline is left for later."""
        begun: list[bytes] = []
        at = read_to = start
        while chunk := os.pread(self._descriptor, _CHUNK, read_to):
            read_to += len(chunk)
            lines = chunk.split(b"\n")
            begun.append(lines[0])
            if len(lines) == 1:
                continue
            lines[0] = b"".join(begun)
            begun = [lines.pop()]
            for line in lines:
                yield at, line + b"\n"
                at += len(line) + 1

    def _line_at(self, start: int) -> bytes:
        parts = [os.pread(self._descriptor, _GUESS, start)]
        at = start
        while (end := parts[-1].find(b"\n")) < 0 and parts[-1]:
            at += len(parts[-1])
            parts.append(os.pread(self._descriptor, _CHUNK, at))
        parts[-1] = parts[-1][: end + 1]
        return b"".join(parts)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a call cannot hold a {type(value).__name__}")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value
