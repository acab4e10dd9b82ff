"""Segments of the call log: what journals become when their process ends. Immutable, compressed, quick to search.

    <name>.jsonl.zst   the journal's lines in zstd frames of some 32 KB, each behind a skippable frame with its length
                       and checksum; `zstdcat` and DuckDB's `read_json` read it
    <name>.parquet     the index: for each call its key, frame and line, and what it cost; `name` is its own xxh3-128

Lines stay in the order of the calls, so that a node's rows find their calls in few frames. The data alone is the
truth: an index that is lost or damaged is made again from it.
"""

from __future__ import annotations

import logging
import os
import struct
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from bqbuild.core.hashing import digest_file
from bqbuild.store.disk import fsync
from bqbuild.store.journal import decode_line, line_key
from bqbuild.store.keyindex import KeyIndex

log = logging.getLogger(__name__)

DATA = ".jsonl.zst"
INDEX = ".parquet"
FRAME_BYTES = 1 << 15
FRAME_LINES = 1 << 12
_CACHED_FRAMES = 64
_CACHED_BYTES = 1 << 20
"""Frames of larger calls are not kept in memory."""
_LINE_BITS = np.uint64(16)
# A zstd skippable frame: magic number, size of what it holds, then our own: bytes packed, bytes unpacked, xxh3-64.
_HEADER = struct.Struct("<IIQQQ")
_MAGIC = 0x184D2A5B
_HOLDS = _HEADER.size - 8
_END = _HEADER.pack(_MAGIC, _HOLDS, 0, 0, 0)
"""The header of no frame ends the data, so that a file cut between two frames is not taken for a shorter one."""

_INDEX_SCHEMA = pa.schema(
    [
        ("frame", pa.uint64()),
        ("line", pa.uint32()),
        ("key", pa.string()),
        ("llm", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cost", pa.float64()),
        ("created", pa.float64()),
    ]
)
_indexed = itemgetter(*_INDEX_SCHEMA.names[2:])


def write_segment(lines: Iterable[bytes], folder: Path, scratch: Path) -> Path | None:
    """Write sound lines as a segment of `folder`; None where there are no lines. Raises OSError."""
    data = scratch / f"segment-{uuid4().hex}{DATA}"
    index = scratch / f"{data.name}{INDEX}"
    try:
        if not _write_data(lines, data):
            return None
        _write_index(data, index)
        name = digest_file(index)
        for path in (data, index):
            fsync(path)
        # The index first: data is what readers look for.
        index.rename(folder / f"{name}{INDEX}")
        data.rename(folder / f"{name}{DATA}")
        fsync(folder)
        return folder / f"{name}{DATA}"
    finally:
        data.unlink(missing_ok=True)
        index.unlink(missing_ok=True)


def remove_segment(path: Path) -> None:
    """Remove a segment, given the path of its data. Raises OSError."""
    path.unlink(missing_ok=True)
    _index_path(path).unlink(missing_ok=True)


class Segment:
    """A segment that is open for reading. Its file stays readable here when it was removed.

    `lost` has the keys whose calls were found to be damaged; `damage` names the file where it is not known which keys
    it had; `is_foreign` says that the data are not those of the index.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self.path = path
        self.lost: set[str] = set()
        self.damage: str | None = None
        self.is_foreign = False
        self._descriptor = os.open(path, os.O_RDONLY)
        self._frames: OrderedDict[int, list[bytes]] = OrderedDict()
        self._index = KeyIndex()
        table = _read_index(path, ["key", "frame", "line"])
        if table is None:
            log.warning("the index of %s is missing or damaged and was made again in memory", path)
            table = self._indexed_again()
        elif not self._fits(table):
            log.warning("%s has not the calls that its index lists, and was indexed again in memory", path)
            self.is_foreign = True
            listed = set(table.column("key").to_pylist())
            table = self._indexed_again()
            self.lost |= listed - set(table.column("key").to_pylist())
        keys = np.frombuffer(bytes.fromhex("".join(table.column("key").to_pylist())), ">u8")[::2].astype(np.uint64)
        frames, lines = (table.column(name).to_numpy().astype(np.uint64) for name in ("frame", "line"))
        self._index.add_many(keys, (frames << _LINE_BITS) | lines)

    def find(self, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The calls among `keys`, as JSON objects. Those that are here and damaged go to `lost`. Raises OSError."""
        for key, position in sorted(self._index.find(keys), key=lambda pair: pair[1]):
            lines, number = self._frame(position >> 16), position & 0xFFFF
            # The index goes by the first 64 bits of a key: other bits may differ, those may not.
            if lines is None or number >= len(lines) or line_key(lines[number])[:16] != key[:16]:
                self.lost.add(key)
            elif line_key(lines[number]) == key:
                yield decode_line(lines[number])

    def cost_of(self, keys: Collection[str]) -> float:
        """What these calls cost, in dollars, as far as the index tells."""
        return sum(cost for key, cost in indexed_costs(self.path).items() if key in keys)

    def keys(self) -> set[str]:
        """The keys of all lines that can be read. Raises OSError."""
        return {line_key(line) for line in self.sound_lines()}

    def sound_lines(self) -> Iterator[bytes]:
        """All lines that can be read, in order. Raises OSError."""
        for start in _frame_starts(self._descriptor):
            yield from self._frame(start) or ()

    def is_whole(self) -> bool:
        """Whether every frame is what was written. Raises OSError."""
        end = 0
        for start in _frame_starts(self._descriptor):
            frame = _read_frame(self._descriptor, start)
            if frame is None:
                return False
            end = start + _HEADER.size + frame[0]
        return os.pread(self._descriptor, _HEADER.size + 1, end) == _END

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _frame(self, start: int) -> list[bytes] | None:
        """The lines of a frame, or None where it is damaged."""
        if start in self._frames:
            self._frames.move_to_end(start)
            return self._frames[start]
        frame = _read_frame(self._descriptor, start)
        if frame is None:
            return None
        lines = _lines_of(frame[1])
        if len(frame[1]) > _CACHED_BYTES:
            return lines
        self._frames[start] = lines
        if len(self._frames) > _CACHED_FRAMES:
            self._frames.popitem(last=False)
        return lines

    def _fits(self, table: pa.Table) -> bool:
        """Whether the first and the last call are where the index has them. A damaged frame cannot tell."""
        for row in {0, table.num_rows - 1} if table.num_rows else ():
            key, frame, number = (table.column(name)[row].as_py() for name in ("key", "frame", "line"))
            lines = self._frame(frame)
            if lines is not None and (number >= len(lines) or line_key(lines[number]) != key):
                return False
        return True

    def _indexed_again(self) -> pa.Table:
        if not self.is_whole():
            self.damage = str(self.path)
        return pa.Table.from_batches(_index_batches(self._descriptor), schema=_INDEX_SCHEMA)


def indexed_costs(data: Path) -> dict[str, float]:
    """What each call of a segment cost, by its index; the data need not be there. Empty where the index is not."""
    table = _read_index(data, ["key", "cost"])
    if table is None:
        return {}
    return dict(zip(table.column("key").to_pylist(), table.column("cost").to_pylist(), strict=True))


def has_sound_index(data: Path) -> bool:
    """Whether the index beside the data is there and what its name says."""
    return _read_index(data, ["key"]) is not None


def _write_data(lines: Iterable[bytes], path: Path) -> bool:
    """Write the frames; False where there was nothing to write."""
    waiting: list[bytes] = []
    waiting_bytes = 0
    codec = pa.Codec("zstd")
    with path.open("wb") as file:
        for line in lines:
            waiting.append(line)
            waiting_bytes += len(line)
            if waiting_bytes >= FRAME_BYTES or len(waiting) >= FRAME_LINES:
                file.write(_packed(b"".join(waiting), codec))
                waiting, waiting_bytes = [], 0
        if waiting:
            file.write(_packed(b"".join(waiting), codec))
        has_calls = file.tell() > 0
        file.write(_END)
        return has_calls


def _packed(data: bytes, codec: pa.Codec) -> bytes:
    packed: bytes = codec.compress(data, asbytes=True)
    checksum = xxhash.xxh3_64_intdigest(packed, seed=len(data))
    return _HEADER.pack(_MAGIC, _HOLDS, len(packed), len(data), checksum) + packed


def _read_frame(descriptor: int, start: int) -> tuple[int, bytes] | None:
    """The packed size and the content of the frame whose header is at `start`; None where it is not as written."""
    header = os.pread(descriptor, _HEADER.size, start)
    if len(header) < _HEADER.size:
        return None
    magic, holds, size, unpacked, checksum = _HEADER.unpack(header)
    if (magic, holds) != (_MAGIC, _HOLDS) or start + size > os.fstat(descriptor).st_size:
        return None
    packed = os.pread(descriptor, size, start + _HEADER.size)
    if xxhash.xxh3_64_intdigest(packed, seed=unpacked) != checksum:
        return None
    return size, pa.Codec("zstd").decompress(packed, decompressed_size=unpacked, asbytes=True)


def _frame_starts(descriptor: int) -> Iterator[int]:
    """Where the frames are, up to the end or to the first header that is not one."""
    start = 0
    while len(header := os.pread(descriptor, _HEADER.size, start)) == _HEADER.size:
        magic, holds, size, _, _ = _HEADER.unpack(header)
        if (magic, holds, size > 0) != (_MAGIC, _HOLDS, True):
            return
        yield start
        start += _HEADER.size + size


def _lines_of(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def _index_path(data: Path) -> Path:
    return data.with_name(data.name.removesuffix(DATA) + INDEX)


def _write_index(data: Path, path: Path) -> None:
    descriptor = os.open(data, os.O_RDONLY)
    try:
        with pq.ParquetWriter(path, _INDEX_SCHEMA, compression="zstd") as writer:
            for batch in _index_batches(descriptor):
                writer.write_batch(batch)
    finally:
        os.close(descriptor)


def _index_batches(descriptor: int) -> Iterator[pa.RecordBatch]:
    """The index of the data, read back from it: what is indexed is what is really there."""
    rows: list[tuple[Any, ...]] = []
    for start in _frame_starts(descriptor):
        frame = _read_frame(descriptor, start)
        for number, line in enumerate(_lines_of(frame[1]) if frame else ()):
            rows.append((start, number, *_indexed(decode_line(line))))
        if len(rows) >= FRAME_LINES:
            yield _index_batch(rows)
            rows = []
    if rows:
        yield _index_batch(rows)


def _index_batch(rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _INDEX_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_INDEX_SCHEMA)


def _read_index(data: Path, columns: Sequence[str]) -> pa.Table | None:
    """The index beside the data, or None where it is missing or not what its name says."""
    path = _index_path(data)
    try:
        if digest_file(path) != path.name.removesuffix(INDEX):
            return None
        return pq.read_table(path, columns=list(columns))
    except FileNotFoundError:
        return None
