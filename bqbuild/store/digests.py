"""Digests of the content of tables: of a multiset of row tuples, on Arrow buffers, with numpy.

Two 64-bit lanes are carried side by side, with different constants, and end in one 128-bit digest:

    value  -> lanes   fixed width: its bits, mixed; text and bytes: the two halves of its xxh3-128; NULL: a constant;
                      list: the sum of its items' lanes, each mixed with its position, and its length; struct: its
                      fields in order
    row    -> lanes   its values in order of columns, mixed after each, so that columns can't trade values
    table  -> lanes   the sum of its rows modulo 2^64, so that order does not count and multiplicity does
    digest            of the columns' names and types, the number of rows and the two sums

Chunks, slices, dictionaries, what lies under a NULL and the NaN's payload leave no mark. NULL, '', 0 and False differ,
and so do 0.0 and -0.0. Values are mixed without their type: the column's type is in the digest beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from bqbuild.core.hashing import Digest, digest
from bqbuild.core.records import Column
from bqbuild.store.base import CONTENT_SCHEME
from bqbuild.store.types import columns_of, conformed, stored_schema

Lane = npt.NDArray[np.uint64]
Lanes = tuple[Lane, Lane]

# For each lane: the step between values, the constants of the mixer (those of splitmix64 and of MurmurHash3), the
# start of a row, and the marks for NULL, a sequence and a length. Odd or random-looking numbers; any would do.
_STEP = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93))
_MIX = (
    (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)),
    (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)),
)
_SEED = (np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344))
_NULL = (np.uint64(0xA4093822299F31D0), np.uint64(0x082EFA98EC4E6C89))
_NAN = np.uint64(0x7FF8000000000000)
_HALF = np.uint64(32)
_BLOCK = 1 << 16
"""Rows hashed at a time: the lanes stay in the processor's cache, memory stays bounded."""


class ContentDigest:
    """Takes the rows of a table in any order and any chunks, and gives the digest of their multiset."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self.rows = 0
        self._sums = [0, 0]

    def update(self, table: pa.Table) -> None:
        """Add rows. `table` has the stored schema of these columns, in their order."""
        for start in range(0, table.num_rows, _BLOCK):
            for lane, values in enumerate(row_lanes(table.slice(start, _BLOCK))):
                self._sums[lane] = (self._sums[lane] + int(np.add.reduce(values, dtype=np.uint64))) % (1 << 64)
        self.rows += table.num_rows

    def value(self) -> Digest:
        """The digest of what was added so far."""
        columns = [[column.name, column.type] for column in self.columns]
        return digest(["content", CONTENT_SCHEME, columns, self.rows, [f"{lane:016x}" for lane in self._sums]])


def table_digest(table: pa.Table) -> Digest:
    """The digest of a table in memory; its schema need not be in the stored form."""
    schema = stored_schema(table.schema)
    content = ContentDigest(columns_of(table.schema))
    content.update(conformed(table, schema))
    return content.value()


def row_lanes(table: pa.Table) -> Lanes:
    """The lanes of each row of a table in stored form."""
    return _combined((_column_lanes(column) for column in table.columns), table.num_rows)


def _column_lanes(column: pa.ChunkedArray) -> Lanes:
    chunks = [value_lanes(chunk) for chunk in column.chunks]
    if len(chunks) == 1:
        return chunks[0]
    empty = np.empty(0, np.uint64)
    return (
        np.concatenate([chunk[0] for chunk in chunks] or [empty]),
        np.concatenate([chunk[1] for chunk in chunks] or [empty]),
    )


def value_lanes(array: pa.Array) -> Lanes:
    """The lanes of each value of an array in stored form; slices and nested types included."""
    lanes = _lanes_without_null(array)
    if array.null_count:
        null = np.asarray(array.is_null().to_numpy(zero_copy_only=False))
        for lane, mark in zip(lanes, _NULL, strict=True):
            lane[null] = mark
    return lanes


def _lanes_without_null(array: pa.Array) -> Lanes:
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _bytes_lanes(array)
    if pa.types.is_struct(kind):
        return _combined((value_lanes(array.field(index)) for index in range(kind.num_fields)), len(array))
    if pa.types.is_map(kind):
        # Entries in the order in which they are stored: DuckDB compares maps in that order too.
        return _list_lanes(array, pa.StructArray.from_arrays([array.keys, array.items], names=["key", "value"]))
    if pa.types.is_list(kind):
        return _list_lanes(array, array.values)
    if pa.types.is_decimal128(kind):
        words = _buffer(array, np.uint64, 2).reshape(-1, 2)
        return _combined((_word_lanes(words[:, index].copy()) for index in range(2)), len(array))
    return _word_lanes(_words(array))


def _combined(parts: Iterable[Lanes], count: int) -> Lanes:
    """One pair of lanes of several, in order: seed, then step and mix for each part."""
    state = (np.full(count, _SEED[0]), np.full(count, _SEED[1]))
    for part in parts:
        for lane in range(2):
            np.multiply(state[lane], _STEP[lane], out=state[lane])
            np.add(state[lane], part[lane], out=state[lane])
            _mix(state[lane], lane)
    return state


def _word_lanes(words: Lane) -> Lanes:
    lanes = (words + _STEP[0], words + _STEP[1])
    _mix(lanes[0], 0)
    _mix(lanes[1], 1)
    return lanes


def _mix(words: Lane, lane: int) -> None:
    """A bijection of 64 bits that spreads every bit over the word, in place."""
    first, second = _MIX[lane]
    words ^= words >> _HALF
    words *= first
    words ^= words >> np.uint64(29)
    words *= second
    words ^= words >> _HALF


def _bytes_lanes(array: pa.Array) -> Lanes:
    raw = array.cast(pa.binary()) if pa.types.is_string(array.type) else array
    if raw.null_count:
        raw = raw.fill_null(b"")
    # Faster than slicing the buffer in Python; the digests are big-endian, on every machine.
    joined = b"".join(map(xxhash.xxh3_128_digest, raw.to_pylist()))
    pairs = np.frombuffer(joined, dtype=">u8").reshape(-1, 2)
    return pairs[:, 0].astype(np.uint64), pairs[:, 1].astype(np.uint64)


def _list_lanes(array: pa.Array, items: pa.Array) -> Lanes:
    """Sums over each list of its items mixed with their positions, mixed again with the length."""
    offsets = np.from_dlpack(array.offsets).astype(np.int64)  # to_numpy() would import pandas, where there is one
    first, last = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    lengths = np.diff(offsets)
    starts = np.repeat(offsets[:-1] - first, lengths)
    positions = (np.arange(last - first, dtype=np.int64) - starts).view(np.uint64)
    lanes = _combined((_word_lanes(positions), value_lanes(items.slice(first, last - first))), last - first)
    totals = []
    for lane in range(2):
        running = np.zeros(last - first + 1, np.uint64)
        np.cumsum(lanes[lane], out=running[1:])
        totals.append(running[offsets[1:] - first] - running[offsets[:-1] - first])
    return _combined(((totals[0], totals[1]), _word_lanes(lengths.view(np.uint64))), len(array))


def _words(array: pa.Array) -> Lane:
    """The values of a fixed-width array as 64-bit words; what stands under a NULL is whatever it is."""
    kind = array.type
    if pa.types.is_boolean(kind):
        bits = np.frombuffer(array.buffers()[1], np.uint8) if len(array) else np.empty(0, np.uint8)
        return np.unpackbits(bits, bitorder="little")[array.offset :][: len(array)].astype(np.uint64)
    if pa.types.is_floating(kind):
        return _float_words(array, kind.bit_width)
    prefix = "u" if pa.types.is_unsigned_integer(kind) else "i"
    values = _buffer(array, np.dtype(f"{prefix}{kind.bit_width // 8}"), 1)
    return values.astype(np.uint64) if prefix == "u" else values.astype(np.int64).view(np.uint64)


def _float_words(array: pa.Array, width: int) -> Lane:
    values = _buffer(array, np.dtype(f"f{width // 8}"), 1)
    words = values.view(np.dtype(f"u{width // 8}")).astype(np.uint64)
    words[np.isnan(values)] = _NAN
    return words


def _buffer(array: pa.Array, kind: Any, words: int) -> npt.NDArray[Any]:
    """The data buffer of an array as numbers, `words` for each value, from the array's offset on."""
    data = array.buffers()[1]
    if data is None or not len(array):  # nothing but NULLs, or nothing at all
        return np.zeros(len(array) * words, kind)
    values = np.frombuffer(data, kind, count=(array.offset + len(array)) * words)
    return values[array.offset * words :]
