"""What a reader is, and what all readers share: bounded batches, and text that is UTF-8."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bqbuild.config.specs import SourceSpec
from bqbuild.core.errors import BuildError, Where
from bqbuild.nodes.source_files import SourceFile

Row = dict[str, Any]
Batch = list[tuple[int, Row]]
"""Rows with the line on which each begins (0 where the format has no lines)."""

Reader = Callable[[SourceFile, SourceSpec], Iterator[Batch]]
"""Reads one file. Raises BuildError, with file and line, for what is not of its format."""

MAX_ROWS = 4096
MAX_BYTES = 16 << 20

UTF8_BOM = b"\xef\xbb\xbf"
OTHER_BOMS = (b"\xff\xfe", b"\xfe\xff")


def batched(rows: Iterable[tuple[int, Row, int]]) -> Iterator[Batch]:
    """Batches of rows given with their line and size in bytes; a batch ends at `MAX_ROWS` or above `MAX_BYTES`."""
    batch: Batch = []
    size = 0
    for line, row, weight in rows:
        batch.append((line, row))
        size += weight
        if len(batch) >= MAX_ROWS or size >= MAX_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def decode(file: SourceFile, data: bytes, line: int) -> str:
    """`data`, whose first byte is on `line`, as text. Raises BuildError for bytes that are not UTF-8, and for NUL."""
    if data.startswith(OTHER_BOMS):
        raise BuildError(
            "this is UTF-16, not UTF-8",
            where=Where(file.shown_as, line),
            hint="convert the file to UTF-8",
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _at(
            file,
            data,
            line,
            error.start,
            f"byte 0x{data[error.start]:02x} is not UTF-8",
        ) from error
    if "\0" in text:
        raise _at(file, data, line, data.index(b"\0"), "there is a NUL byte in the text")
    return text


def read_bytes(file: SourceFile) -> bytes:
    """The whole file without a byte order mark. Raises BuildError."""
    try:
        return file.path.read_bytes().removeprefix(UTF8_BOM)
    except OSError as error:
        raise BuildError(f"{file.shown_as} cannot be read: {error.strerror}") from error


def _at(file: SourceFile, data: bytes, line: int, position: int, message: str) -> BuildError:
    before = data[:position]
    column = position - (before.rfind(b"\n") + 1) + 1
    where = Where(file.shown_as, line + before.count(b"\n"), column)
    return BuildError(message, where=where, hint="source files are text in UTF-8")
