"""What happens to the text of a prompt before Jinja sees it: comments go, lines that name a role become calls.

A Jinja comment never changes what is rendered: one that has its lines to itself takes them along, one at the end of a
line takes the blanks before it, one between words leaves the blanks of one side. Lines that vanish are remembered, so
that errors name the line in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

ROLES = ("system", "user", "assistant")
ROLE_FUNCTION = "_bq_role"

_OPEN = re.compile(r"\{[{%#]")
_RAW = re.compile(r"\{%[-+]?\s*raw\s*[-+]?%\}")
_INCLUDE = re.compile(r"\{%[-+]?\s*include\b")
_ENDRAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[\[({]|[\])}]|[-+]?%\}""", re.DOTALL)
_ROLE_LINE = re.compile(rf"^({'|'.join(ROLES)}):(?=[ \t]|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a template: `text`, `comment`, `tag` or `raw`."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class TemplateText:
    """A template as Jinja gets it. `lines` holds the line in the file of each line; with None they just count on."""

    source: str
    lines: tuple[int, ...] | None
    first_line: int

    def line(self, number: int) -> int:
        """The line in the file of the line that Jinja calls `number`."""
        if self.lines is None:
            return self.first_line + number - 1
        return self.lines[min(number, len(self.lines)) - 1] if self.lines else self.first_line


def pieces(source: str) -> Iterator[Piece]:
    """Cut a template where Jinja would. What is broken comes out as one `tag`, for Jinja to complain about."""
    position = 0
    while found := _OPEN.search(source, position):
        start = found.start()
        if start > position:
            yield Piece("text", source[position:start])
        kind, end = _end_of(source, start)
        yield Piece(kind, source[start:end])
        position = end
    if position < len(source):
        yield Piece("text", source[position:])


def _end_of(source: str, start: int) -> tuple[str, int]:
    if source.startswith("{#", start):
        end = source.find("#}", start + 2)
        return ("tag", len(source)) if end < 0 else ("comment", end + 2)
    raw = _RAW.match(source, start)
    if raw:
        over = _ENDRAW.search(source, raw.end())
        return ("raw", over.end() if over else len(source))
    is_block = source.startswith("{%", start)
    depth = 0
    for token in _TOKEN.finditer(source, start + 2):
        text = token.group()
        if text in "[({":
            depth += 1
        elif text in "])}":
            if text == "}" and not depth and not is_block and source.startswith("}}", token.start()):
                return ("tag", token.start() + 2)
            depth = max(depth - 1, 0)
        elif text.endswith("%}") and is_block:
            return ("tag", token.end())
    return ("tag", len(source))


def prepare(source: str, first_line: int = 1, *, roles: bool = True) -> TemplateText:
    """`source` without its comments and with its role lines as calls. `first_line` is where it starts in its file."""
    text, lines = _without_comments(source, first_line)
    text = _with_whole_lines(text)
    return TemplateText(_with_roles(text) if roles else text, lines, first_line)


def _with_whole_lines(text: str) -> str:
    """An include stands for text, so the end of its line stays: a sentence and an include of it render the same.
    Jinja would trim the newline after it, as after any block."""
    kept = []
    for piece in pieces(text):
        is_include = piece.kind == "tag" and _INCLUDE.match(piece.text) and piece.text.endswith("%}")
        kept.append(f"{piece.text[:-2]}+%}}" if is_include and piece.text[-3] not in "-+" else piece.text)
    return "".join(kept)


def _without_comments(source: str, first_line: int) -> tuple[str, tuple[int, ...] | None]:
    """The text, and the line in the file of each of its lines where that is not just a count."""
    parts = list(pieces(source))
    if not any(part.kind == "comment" for part in parts):
        return source, None
    done = _Tracked("", [])
    line = first_line
    following: list[_Tracked] = []
    for part in parts:
        following.append(_Tracked.of(part.text, line))
        line += part.text.count("\n")
    for number, part in enumerate(parts):
        if part.kind != "comment":
            done = done.plus(following[number])
            continue
        is_text = number + 1 < len(parts) and parts[number + 1].kind == "text"
        after = following[number + 1].text if is_text else None
        kept, cut = _around(done.text, part.text, after, at_end=number + 1 == len(parts))
        done = done.first(kept)
        if is_text:
            following[number + 1] = following[number + 1].without_first(cut)
    return done.text, done.line_starts()


@dataclass(frozen=True, slots=True)
class _Tracked:
    """Text that knows the line in the file of each of its characters."""

    text: str
    lines: list[int]

    @staticmethod
    def of(text: str, line: int) -> _Tracked:
        lines = []
        for character in text:
            lines.append(line)
            line += character == "\n"
        return _Tracked(text, lines)

    def plus(self, other: _Tracked) -> _Tracked:
        return _Tracked(self.text + other.text, self.lines + other.lines)

    def first(self, count: int) -> _Tracked:
        return _Tracked(self.text[:count], self.lines[:count])

    def without_first(self, count: int) -> _Tracked:
        return _Tracked(self.text[count:], self.lines[count:])

    def line_starts(self) -> tuple[int, ...]:
        starts = [0, *(number + 1 for number, character in enumerate(self.text) if character == "\n")]
        return tuple(self.lines[start] for start in starts if start < len(self.lines))


def _around(before: str, comment: str, after: str | None, *, at_end: bool) -> tuple[int, int]:
    """How many characters stay of the text before a comment, and how many go of the text after it."""
    text = after or ""
    if comment.startswith("{#-") or comment.endswith("-#}"):
        kept = len(before.rstrip()) if comment.startswith("{#-") else len(before)
        return kept, len(text) - len(text.lstrip()) if comment.endswith("-#}") else 0
    line = before[before.rfind("\n") + 1 :]
    opens_line = not line.strip()
    blanks = len(text) - len(text.lstrip(" \t"))
    closes_line = text[blanks : blanks + 1] == "\n" or (at_end and not text[blanks:])
    if opens_line and closes_line:
        return len(before) - len(line), min(blanks + 1, len(text))
    if closes_line:
        return len(before.rstrip(" \t")), blanks
    if opens_line:
        return len(before), blanks
    if blanks and before[-1:] in (" ", "\t"):
        return len(before.rstrip(" \t")), 0
    return len(before), 0


def _with_roles(source: str) -> str:
    """`source` with every line that starts with a role replaced by a call that starts a message.

    Roles are looked for in the template's own text only, never in tags, so no value can make one.
    """
    done: list[str] = []
    at_line_start = True
    for part in pieces(source):
        done.append(_roles_as_calls(part.text, at_line_start) if part.kind == "text" else part.text)
        at_line_start = part.text.endswith("\n")
    return "".join(done)


def _roles_as_calls(text: str, at_line_start: bool) -> str:
    def call(found: re.Match[str]) -> str:
        if found.start() == 0 and not at_line_start:
            return found.group()
        return f"{{{{ {ROLE_FUNCTION}('{found.group(1)}') }}}}"

    return _ROLE_LINE.sub(call, text)
