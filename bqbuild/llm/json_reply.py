"""JSON as LLMs write it: in fences, amid prose, with trailing commas, raw newlines and LaTeX. Pure.

Work is bounded whatever the text: nesting by `MAX_DEPTH`, re-reading by a budget of characters.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 64
ATTEMPT_COST = 500
"""Characters of the budget that a failed attempt costs beyond those it read."""


class Number(str):
    """A number as it was written, so that `1.10` stays `1.10` and 5,000 digits cost nothing until they are used."""

    __slots__ = ()


class NotJsonError(ValueError):
    """What was met is no JSON; `position` is how far reading came."""

    def __init__(self, position: int) -> None:
        super().__init__(f"no JSON at {position}")
        self.position = position


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(strict=False, parse_float=Number, parse_int=Number, parse_constant=_no_constant)
# Where JSON may start; LaTeX and templates have braces too, but not before a quotation mark.
_START = re.compile(r"""\{(?=\s*["'}\u201c])|\[(?=\s*["'{\[\]\-0-9tfnTFN\u201c])""")
_SPACE = re.compile(r"(?:[ \t\r\n\ufeff\xa0]|//[^\n]*)*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"[A-Za-z]+")
_WORDS: dict[str, Any] = {
    "true": True, "True": True, "false": False, "False": False, "null": None, "None": None,
}  # fmt: skip
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d"}
_ESCAPES = {'"': '"', "'": "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_SWALLOWED = re.compile(
    "[\b\f](?=[A-Za-z])|\t(?=(?:imes|heta|frac|ilde|riangle)|ext[a-z]*\\{)|\r(?=(?:ho|ight|angle))|\n(?=(?:abla|otin))"
)
_LETTERS = {"\b": "\\b", "\f": "\\f", "\t": "\\t", "\r": "\\r", "\n": "\\n"}


def read_json(text: str) -> list[Any]:
    """The JSON containers that stand in `text`, outermost ones, in order; a text that is JSON as a whole is one value.

    Numbers come as `Number`. Nothing raises: a text without JSON gives an empty list.
    """
    try:
        value, end = _strict(text, len(text) - len(text.lstrip()))
        if not text[end:].strip():
            return [value]
    except NotJsonError:
        pass
    return _scan(text)


def ends_open(text: str) -> bool:
    """Whether JSON was begun in `text` whose end is missing."""
    position, budget = 0, 300_000 + 3 * len(text)
    while budget > 0 and (start := _START.search(text, position)):
        try:
            _, position = _tolerant(text, start.start())
        except NotJsonError as error:
            if error.position >= len(text):
                return True
            budget -= error.position - start.start() + ATTEMPT_COST
            position = start.end()
    return False


def restore_latex(value: Any) -> Any:
    """Undo escapes that were none, at any depth: `"\\frac"` in JSON is a form feed and `rac`, which nobody means."""
    if isinstance(value, str):
        return _SWALLOWED.sub(lambda match: _LETTERS[match[0]], value) if not value.isprintable() else value
    if isinstance(value, list):
        return [restore_latex(item) for item in value]
    if isinstance(value, dict):
        return {name: restore_latex(item) for name, item in value.items()}
    return value


def _scan(text: str) -> list[Any]:
    found: list[Any] = []
    position, budget = 0, 300_000 + 3 * len(text)
    while budget > 0 and (start := _START.search(text, position)):
        for read in (_strict, _tolerant):
            try:
                value, position = read(text, start.start())
                found.append(value)
                break
            except NotJsonError as error:
                budget -= error.position - start.start() + ATTEMPT_COST + error.position // 16
        else:
            position = start.end()
    return found


def _strict(text: str, start: int) -> tuple[Any, int]:
    try:
        value, end = _STRICT.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise NotJsonError(error.pos) from None
    except (ValueError, StopIteration):
        raise NotJsonError(start) from None
    except RecursionError:
        raise NotJsonError(start + 1000) from None
    if too_deep(value):
        raise NotJsonError(end)
    return value, end


def too_deep(value: Any) -> bool:
    """Whether lists and objects nest deeper than `MAX_DEPTH`."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for box in level
            if isinstance(box, list | dict)
            for item in (box.values() if isinstance(box, dict) else box)
            if isinstance(item, list | dict)
        ]
        if not level:
            return False
    return True


def _tolerant(text: str, start: int) -> tuple[Any, int]:
    reader = _Reader(text, start)
    return reader.value(0), reader.position


class _Reader:
    """A recursive-descent reader that forgives trailing commas, Python's words and quotes, bad escapes, and quotation
    marks inside strings. Unclosed brackets it does not forgive: they mean that the reply was cut off."""

    __slots__ = ("position", "text")

    def __init__(self, text: str, position: int) -> None:
        self.text = text
        self.position = position

    def value(self, depth: int, after: str = "") -> Any:
        mark = self._peek()
        if depth > MAX_DEPTH:
            raise NotJsonError(self.position)
        if mark == "{":
            return self._object(depth)
        if mark == "[":
            return self._list(depth)
        if mark in _QUOTES:
            return self._string(after)
        if match := _NUMBER.match(self.text, self.position):
            self.position = match.end()
            return Number(match[0])
        if (match := _WORD.match(self.text, self.position)) and match[0] in _WORDS:
            self.position = match.end()
            return _WORDS[match[0]]
        raise NotJsonError(self.position)

    def _peek(self) -> str:
        match = _SPACE.match(self.text, self.position)
        self.position = match.end() if match else self.position
        return self.text[self.position : self.position + 1]

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.position += 1
        while (mark := self._peek()) != "}":
            if mark not in _QUOTES or not mark:
                raise NotJsonError(self.position)
            name = self._string(":")
            if self._peek() != ":":
                raise NotJsonError(self.position)
            self.position += 1
            found[name] = self.value(depth + 1, "\"'}\u201c")
            self._comma("}")
        self.position += 1
        return found

    def _list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        self.position += 1
        while self._peek() != "]":
            found.append(self.value(depth + 1, "\"'\u201c[]{-0123456789tfnTFN"))
            self._comma("]")
        self.position += 1
        return found

    def _comma(self, end: str) -> None:
        mark = self._peek()
        if mark == ",":
            self.position += 1
        elif mark != end:
            raise NotJsonError(self.position)

    def _string(self, after: str) -> str:
        """A string; `after` is ":" for a key, else what may follow the comma behind it."""
        text, quote = self.text, _QUOTES[self.text[self.position]]
        stop = re.compile(f"[{quote}\\\\]")
        parts: list[str] = []
        self.position += 1
        while match := stop.search(text, self.position):
            parts.append(text[self.position : match.start()])
            self.position = match.end()
            if match[0] == "\\":
                parts.append(self._escape())
            elif self._closes(after):
                return "".join(parts)
            else:
                parts.append(match[0])
        raise NotJsonError(len(text))

    def _closes(self, after: str) -> bool:
        """Whether the quotation mark just read ends the string: what follows must be what may follow a string."""
        begin = self.position
        mark = self._peek()
        if after == ":":
            closes = mark == ":"
        elif mark == ",":
            self.position += 1
            following = self._peek()
            closes = bool(following) and following in after
        else:
            closes = mark in ("}", "]")
        self.position = begin
        return closes

    def _escape(self) -> str:
        mark = self.text[self.position : self.position + 1]
        self.position += 1
        if mark == "u" and (match := _HEX.match(self.text, self.position)):
            self.position = match.end()
            return chr(int(match[0], 16))
        return _ESCAPES.get(mark, "\\" + mark)
