"""CSV with a header line. Cells are text; an empty cell is NULL."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator

from bqbuild.config.specs import SourceSpec
from bqbuild.core.errors import BuildError, Where
from bqbuild.nodes.readers.base import UTF8_BOM, Batch, Row, batched, decode
from bqbuild.nodes.source_files import SourceFile


def read_csv(file: SourceFile, spec: SourceSpec) -> Iterator[Batch]:
    """One row a record; a quoted cell may span lines."""
    # The limit of 128 KB a cell is one of the whole process, and there to stop nobody who means it.
    csv.field_size_limit(sys.maxsize)
    return batched(_records(file, spec.delimiter))


def _records(file: SourceFile, delimiter: str) -> Iterator[tuple[int, Row, int]]:
    lines = _lines(file)
    records = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(records, None)
        if header is None:
            raise BuildError(
                "the file is empty: it has no header line",
                where=Where(file.shown_as, 1),
            )
        _check_header(file, header)
        before = records.line_num
        for cells in records:
            line, before = before + 1, records.line_num
            if not cells:
                continue
            if len(cells) != len(header):
                raise BuildError(
                    f"this record has {len(cells)} cells, the header has {len(header)}",
                    where=Where(file.shown_as, line),
                    hint=f"cells are separated by {delimiter!r}; `delimiter:` changes that",
                )
            row = {name: cell or None for name, cell in zip(header, cells, strict=True)}
            yield line, row, sum(map(len, cells))
    except csv.Error as error:
        raise BuildError(f"this is not CSV: {error}", where=Where(file.shown_as, records.line_num)) from error


def _lines(file: SourceFile) -> Iterator[str]:
    """Lines as text, with their ends, which belong to the cell where it spans lines."""
    try:
        with file.path.open("rb") as data:
            for number, line in enumerate(data, start=1):
                yield decode(file, line.removeprefix(UTF8_BOM) if number == 1 else line, number)
    except OSError as error:
        raise BuildError(f"{file.shown_as} cannot be read: {error.strerror}") from error


def _check_header(file: SourceFile, header: list[str]) -> None:
    for position, name in enumerate(header):
        if not name.strip():
            raise BuildError(
                f"column {position + 1} has no name in the header",
                where=Where(file.shown_as, 1),
            )
        if name in header[:position]:
            raise BuildError(
                f"two columns of the header are called `{name}`",
                where=Where(file.shown_as, 1),
            )
