"""JSON: one object a line (`jsonl`), or one document that is an object (one row) or an array of objects (`json`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import orjson

from bqbuild.config.specs import SourceSpec
from bqbuild.core.errors import BuildError, Where
from bqbuild.nodes.readers.base import (
    OTHER_BOMS,
    UTF8_BOM,
    Batch,
    Row,
    batched,
    decode,
    read_bytes,
)
from bqbuild.nodes.source_files import SourceFile

_DIGITS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else 32 for byte in range(256))
_LONG_NUMBER = b"0" * 19
_SPACE = re.compile(r"[ \t\n\r]*")


def read_jsonl(file: SourceFile, spec: SourceSpec) -> Iterator[Batch]:
    """One row a line; blank lines are skipped."""
    return batched(_lines(file))


def read_json(file: SourceFile, spec: SourceSpec) -> Iterator[Batch]:
    """An array of objects is its rows, one object is one row. The document is read whole."""
    return batched(_items(file, decode(file, read_bytes(file), 1)))


def _lines(file: SourceFile) -> Iterator[tuple[int, Row, int]]:
    try:
        with file.path.open("rb") as data:
            for number, line in enumerate(data, start=1):
                text = line.removeprefix(UTF8_BOM) if number == 1 else line
                if not text.isspace() and text:
                    yield number, _object(file, text, number), len(text)
    except OSError as error:
        raise BuildError(f"{file.shown_as} cannot be read: {error.strerror}") from error


def _object(file: SourceFile, line: bytes, number: int) -> Row:
    try:
        value = _loads(line)
    except ValueError as error:
        raise _broken(file, line, number, error) from error
    if not isinstance(value, dict):
        raise _not_an_object(file, number, value)
    return value


def _loads(line: bytes) -> Any:
    """orjson, but for numbers so long that it would round them."""
    value = orjson.loads(line)
    return json.loads(line, parse_constant=_refuse) if _LONG_NUMBER in line.translate(_DIGITS) else value


def _broken(file: SourceFile, line: bytes, number: int, error: ValueError) -> BuildError:
    """The most helpful thing to say of a line that is not JSON."""
    if line.startswith(OTHER_BOMS) or b"\0" in line:
        decode(file, line, number)
    if not isinstance(error, json.JSONDecodeError):
        return BuildError(f"this is not JSON: {error}", where=Where(file.shown_as, number))
    decode(file, line, number)
    return BuildError(
        f"this is not JSON: {error.msg}",
        where=Where(file.shown_as, number, error.colno),
    )


def _items(file: SourceFile, text: str) -> Iterator[tuple[int, Row, int]]:
    """Walks a document item by item, so that each row has its line and memory holds a batch of them."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    cursor = _Cursor(file, text)
    if not cursor.skip("["):
        line = cursor.line
        yield line, cursor.object(decoder), len(text)
    elif not cursor.skip("]"):
        while True:
            cursor.space()
            line, start = cursor.line, cursor.at
            yield line, cursor.object(decoder), cursor.at - start
            if cursor.skip("]"):
                break
            if not cursor.skip(","):
                raise cursor.error("expected `,` or `]`")
    cursor.space()
    if cursor.at != len(text):
        raise cursor.error("there is more after the end", "use `format: jsonl` for one object a line")


class _Cursor:
    """A position in a JSON text, and the line it is on."""

    def __init__(self, file: SourceFile, text: str) -> None:
        self.file = file
        self.text = text
        self.at = 0
        self.line = 1

    def move(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def space(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None, "the pattern matches nothing too"
        self.move(match.end())

    def skip(self, mark: str) -> bool:
        """Go past `mark`, and the space before it, where it comes next."""
        self.space()
        if not self.text.startswith(mark, self.at):
            return False
        self.move(self.at + 1)
        return True

    def object(self, decoder: json.JSONDecoder) -> Row:
        self.space()
        try:
            value, end = decoder.raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            raise BuildError(
                f"this is not JSON: {error.msg}",
                where=Where(self.file.shown_as, error.lineno, error.colno),
            ) from error
        except (ValueError, RecursionError) as error:
            raise self.error(f"this is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise _not_an_object(self.file, self.line, value)
        if _has_lone_surrogate(self.text[self.at : end], value):
            raise self.error("half of a surrogate pair is escaped in this row: it is no character")
        self.move(end)
        return value

    def error(self, message: str, hint: str | None = None) -> BuildError:
        column = self.at - self.text.rfind("\n", 0, self.at)
        return BuildError(message, where=Where(self.file.shown_as, self.line, column), hint=hint)


def _has_lone_surrogate(text: str, value: object) -> bool:
    """Whether a value, parsed from `text`, has a string that no encoding can write; the standard parser lets it in."""
    if "\\ud" not in text and "\\uD" not in text:
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number in JSON")


def _not_an_object(file: SourceFile, line: int, value: object) -> BuildError:
    names = {
        list: "an array",
        str: "a string",
        bool: "a truth value",
        type(None): "null",
    }
    return BuildError(
        f"a row must be a JSON object, this is {names.get(type(value), 'a number')}",
        where=Where(file.shown_as, line),
    )
