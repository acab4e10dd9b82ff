"""Prose: one row a file (`text`), or one row a section of Markdown (`markdown`)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bqbuild.config.specs import SourceSpec
from bqbuild.nodes.readers.base import Batch, Row, batched, decode, read_bytes
from bqbuild.nodes.source_files import SourceFile

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_NOT_A_PARAGRAPH = re.compile(r" {4}|\t| {0,3}(?:[-*+>|]|\d+[.)]\s)")


def read_text(file: SourceFile, spec: SourceSpec) -> Iterator[Batch]:
    """The columns `file` and `text`."""
    text = decode(file, read_bytes(file), 1)
    return batched([(1, {"file": file.name, "text": text}, len(text))])


def read_markdown(file: SourceFile, spec: SourceSpec) -> Iterator[Batch]:
    """The columns `file`, `section` (the path of headings, joined by " > "), `title`, `level` and `text`.

    Text before the first heading is a section without title, of level 0. Headings inside fenced code are code.
    """
    text = decode(file, read_bytes(file), 1)
    return batched((line, {"file": file.name, **row}, len(row["text"])) for line, row in _sections(text))


def _sections(text: str) -> Iterator[tuple[int, Row]]:
    lines = text.splitlines()
    path: list[tuple[int, str]] = []
    start, body = 1, list[str]()
    for number, level, title, content in _blocks(lines):
        if level is None:
            body.append(content)
            continue
        yield from _section(start, path, body)
        path = [
            *((above, name) for above, name in path if above < level),
            (level, title),
        ]
        start, body = number, []
    yield from _section(start, path, body)


def _section(line: int, path: list[tuple[int, str]], body: list[str]) -> Iterator[tuple[int, Row]]:
    text = "\n".join(body).strip("\n")
    if path or text.strip():
        level, title = path[-1] if path else (0, "")
        yield (
            line,
            {
                "section": " > ".join(name for _, name in path),
                "title": title,
                "level": level,
                "text": text,
            },
        )


def _blocks(lines: list[str]) -> Iterator[tuple[int, int | None, str, str]]:
    """Each line as (number, level, title, content); level is None for a line that is no heading."""
    fence = ""
    front_matter = _front_matter(lines)
    skip = 0
    for number, line in enumerate(lines, start=1):
        if number <= front_matter or fence:
            if fence and _closes(line, fence):
                fence = ""
            yield number, None, "", line
            continue
        if skip == number:
            continue
        opening = _FENCE.fullmatch(line)
        if opening and not (opening[1][0] == "`" and "`" in opening[2]):
            fence = opening[1]
            yield number, None, "", line
            continue
        level, title, taken = _heading(lines, number)
        skip = number + 1 if taken == 2 else 0
        yield number, level, title, line


def _heading(lines: list[str], number: int) -> tuple[int | None, str, int]:
    """The level and title of the heading at `number`, and how many lines it takes; (None, "", 0) where none is."""
    line = lines[number - 1]
    match = _HEADING.fullmatch(line)
    if match:
        return len(match[1]), (match[2] or "").strip(), 1
    below = lines[number] if number < len(lines) else ""
    alone = number == 1 or not lines[number - 2].strip()
    underline = _UNDERLINE.fullmatch(below)
    if underline and alone and line.strip() and not _NOT_A_PARAGRAPH.match(line):
        return (1 if underline[1][0] == "=" else 2), line.strip(), 2
    return None, "", 0


def _closes(line: str, fence: str) -> bool:
    mark = line.strip()
    return len(mark) >= len(fence) and set(mark) == {fence[0]} and not line.startswith("    ")


def _front_matter(lines: list[str]) -> int:
    """The number of the line that ends the YAML front matter; 0 where there is none."""
    if not lines or lines[0].strip() != "---":
        return 0
    return next(
        (number for number, line in enumerate(lines[1:], start=2) if line.strip() in ("---", "...")),
        0,
    )
