"""What commands print to stdout: data, and nothing else. Rows and replies are not trusted to be harmless text."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

import click

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move a cursor, change colours or turn the direction of a text; newline and tab are none of them."""

CELL_WIDTH = 72
"""Characters of a value that a table shows where nobody told how wide the terminal is."""

NARROWEST = 16
"""Cells that a column should have before its values are folded."""


def print_json(document: Any) -> None:
    """One JSON document, indented."""
    click.echo(json_text(document, indent=2))


def json_text(document: Any, *, indent: int | None = None) -> str:
    """JSON as programs read it: no NaN, times in ISO form, bytes and decimals as text."""
    return json.dumps(_plain(document), ensure_ascii=False, indent=indent, allow_nan=False)


def print_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, color: bool | None = None) -> None:
    """Rows as a table; on a terminal that is too narrow for it, one value a line instead.

    Where nobody looks at a terminal, a row is a line and long values are cut.
    """
    found = [[safe(value_text(row.get(name))) for name in columns] for row in rows]
    names = [safe(name) for name in columns]
    if not sys.stdout.isatty():
        lines = _aligned(names, found)
    else:
        width = shutil.get_terminal_size().columns
        needed = sum(
            min(NARROWEST, max(cell_width(line[n]) for line in [names, *found])) + 2 for n in range(len(names))
        )
        lines = _records(names, found) if needed > width else _folded(names, found, width)
    for text in lines:
        click.echo(text, color=color)


def cell_width(text: str) -> int:
    """The cells of a terminal that a line takes: two for a Chinese character."""
    from rich.cells import cell_len

    return cell_len(text)


def _aligned(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    cells = [[shortened(value) for value in row] for row in rows]
    widths = [max(cell_width(line[number]) for line in [names, *cells]) for number in range(len(names))]
    for line in [names, ["-" * width for width in widths], *cells]:
        padded = (text + " " * (width - cell_width(text)) for text, width in zip(line, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _records(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """As psql's `\\x`: a row is a paragraph."""
    widest = max((cell_width(name) for name in names), default=0)
    for number, row in enumerate(rows, start=1):
        yield click.style(f"row {number}", dim=True)
        for name, value in zip(names, row, strict=True):
            padding = " " * (widest - cell_width(name))
            yield f"  {click.style(name, fg='cyan')}{padding}  {value.replace(chr(10), chr(10) + ' ' * (widest + 4))}"


def _folded(names: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in names:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(width=width, force_terminal=False, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(table)
    yield from captured.get().rstrip("\n").split("\n")


def safe(text: str) -> str:
    """`text` with what could play tricks on a terminal written out."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def value_text(value: Any) -> str:
    """A value as a person reads it: text as it is, NULL named, the rest as JSON."""
    if value is None:
        return "NULL"
    return value if isinstance(value, str) else json_text(value).strip('"')


def shortened(value: str, width: int = CELL_WIDTH) -> str:
    """A value in one line of at most `width` characters."""
    text = value.replace("\n", "⏎").replace("\t", " ")
    return text if len(text) <= width else f"{text[: width - 1]}…"


def shortened_pair(before: str, after: str) -> tuple[str, str]:
    """Two values in one line each, cut so that where they begin to differ is seen."""
    same = next(
        (at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    start = max(0, same - CELL_WIDTH // 3) if max(len(before), len(after)) > CELL_WIDTH else 0
    head = "…" if start else ""
    return shortened(head + before[start:]), shortened(head + after[start:])


def _plain(value: Any) -> Any:
    """`value` in JSON's types."""
    match value:
        case None | bool() | int():
            found: Any = value
        case Mapping():
            found = {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            found = [_plain(item) for item in value]
        case float():
            found = value if math.isfinite(value) else None
        case datetime() | date() | time():
            found = value.isoformat()
        case bytes():
            found = value.hex()
        case _:
            # a lone surrogate cannot be written as UTF-8
            found = str(value).encode("utf-8", "replace").decode("utf-8")
    return found
