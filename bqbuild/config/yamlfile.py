"""Strict YAML with places: the value, and for every key and item the line and column where it stands.

Scalars are those of YAML 1.2: only `true` and `false` are booleans; `no`, `on` and `1_000` are text. A number keeps
the text that it was written as (`1.10`), for where a text is expected. Keys are text. Duplicate keys, unknown tags,
aliases that explode, several documents and broken UTF-8 are errors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bqbuild.core.errors import ProjectError, Where

Path_ = tuple[str | int, ...]

MAX_DEPTH = 100
MAX_VALUES = 1_000_000
"""Values in one file, aliases counted as often as they are used: far above any real file, far below a bomb."""

_PLAIN = "!plain"
_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"
_CORE = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}

_TAGGED: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}


class WrittenInt(int):
    """An integer whose text is not what Python would write (`007`): `str()` gives the text."""

    text: str

    def __str__(self) -> str:
        return self.text


class WrittenFloat(float):
    """A float whose text is not what Python would write (`1.10`): `str()` gives the text."""

    text: str

    def __str__(self) -> str:
        return self.text


class _Loader(yaml.CSafeLoader):
    """Resolves nothing itself: every plain scalar is marked as such, and `_scalar` decides.

    libyaml's composer calls itself for every level, and deep files would end the process: the two hooks that it calls
    on its way down and up count the levels.
    """

    depth = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """The tag of a node that has none; `implicit[0]` is true for scalars without quotes."""
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _CORE + "str"
        return _CORE + ("map" if kind is yaml.MappingNode else "seq")

    def descend_resolver(self, current_node: yaml.Node | None, current_index: object) -> None:
        """One level down."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = current_node.start_mark if current_node is not None else None
            raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=mark)

    def ascend_resolver(self) -> None:
        """One level up."""
        self.depth -= 1


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file: its value in plain Python (mappings with text keys), and where each part of it stands."""

    value: Any
    shown_as: str
    root: yaml.Node | None = None

    def where(self, path: Sequence[str | int]) -> Where:
        """Where the entry at `path` stands: a mapping's entry at its key, an item at its value.

        Steps that are not in the file are skipped, so that the nearest place that is there is found.
        """
        return _find(self, path)[0]

    def value_where(self, path: Sequence[str | int]) -> Where:
        """Where the value at `path` begins."""
        return _find(self, path)[1]

    def text_where(self, path: Sequence[str | int]) -> Where:
        """Where the first line of the text at `path` stands: below the `|` of a block."""
        node = _find(self, path)[2]
        is_block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
        place = self.value_where(path)
        return Where(place.file, place.line + 1) if is_block else place

    def places(self, path: Sequence[str | int]) -> dict[str, Where]:
        """Where everything below `path` stands, by dotted key (`output.columns.answer`, `rules.0`)."""
        found: dict[str, Where] = {}
        seen: set[int] = set()

        def walk(node: yaml.Node | None, prefix: str) -> None:
            if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
                return
            seen.add(id(node))  # an alias is told once, where it is first used
            is_mapping = isinstance(node, yaml.MappingNode)
            for number, item in enumerate(node.value):
                entry, value = item if is_mapping else (item, item)
                name = f"{prefix}{entry.value if is_mapping else number}"
                found[name] = _mark(entry, self.shown_as)
                walk(value, f"{name}.")

        walk(_find(self, path)[2], "")
        return found


def read_yaml(path: Path, shown_as: str) -> Document:
    """Read a YAML file. Raises ProjectError."""
    return parse_yaml(read_text(path, shown_as), shown_as)


def read_text(path: Path, shown_as: str) -> str:
    """A project file's text: UTF-8, with or without a byte order mark, any line ends. Raises ProjectError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProjectError(f"cannot be read: {error.strerror}", where=Where(shown_as)) from error
    return decode(data, shown_as)


def decode(data: bytes, shown_as: str) -> str:
    """UTF-8 bytes as text with `\\n` line ends. Raises ProjectError naming the line and column of what is not."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        where = Where(shown_as, before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1)
        raise ProjectError("is not UTF-8", where=where, hint="save the file as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_yaml(text: str, shown_as: str) -> Document:
    """The document that `text` holds; an empty one has the value None. Raises ProjectError."""
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, shown_as) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        where = Where(shown_as, before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise ProjectError("has a character that YAML does not allow", where=where) from error
    if root is None:
        return Document(None, shown_as)
    return Document(_Converter(shown_as).convert(root, 0), shown_as, root)


def plain(value: Any) -> Any:
    """`value` with numbers as plain Python numbers, without the text that they were written as."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, WrittenInt):
        return int(value)
    return float(value) if isinstance(value, WrittenFloat) else value


def _syntax_error(error: yaml.MarkedYAMLError, text: str, shown_as: str) -> ProjectError:
    mark = error.problem_mark or error.context_mark
    where = Where(shown_as, mark.line + 1, mark.column + 1) if mark else Where(shown_as)
    problem = error.problem or "cannot be read"
    if problem == _TOO_DEEP:
        return ProjectError(problem, where=where)
    if "another document" in problem:
        return ProjectError("holds several YAML documents", where=where, hint="keep one document a file")
    lines = text.split("\n")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    hint = None
    if "\t" in line[: mark.column + 1 if mark else 0] or "'\\t'" in problem or "tab" in problem:
        hint = "indent with spaces: YAML does not allow tabs"
    elif "{{" in line or "{%" in line:
        hint = "put a value that has {{ … }} in quotes"
    context = f" {error.context}" if error.context else ""
    return ProjectError(f"broken YAML: {problem}{context}", where=where, hint=hint)


class _Converter:
    """Turns YAML nodes into values. Aliased nodes are converted once, and counted as often as they are used."""

    def __init__(self, shown_as: str) -> None:
        self._shown_as = shown_as
        self._done: dict[int, tuple[Any, int, int]] = {}
        self._deepest = 0
        self._open: set[int] = set()
        self._count = 0

    def convert(self, node: yaml.Node, depth: int) -> Any:
        if isinstance(node, yaml.ScalarNode):
            self._count += 1
            return self._scalar(node)
        known = self._done.get(id(node))
        if known is not None:
            self._add(known[1], node)
            self._deepen(depth + known[2], node)
            return known[0]
        if id(node) in self._open:
            raise self._error("an alias stands inside what it names", node)
        self._open.add(id(node))
        before, deepest = self._count, self._deepest
        self._deepest = depth
        self._add(1, node)
        self._deepen(depth, node)
        value = self._mapping(node, depth) if isinstance(node, yaml.MappingNode) else self._sequence(node, depth)
        self._open.discard(id(node))
        self._done[id(node)] = (value, self._count - before, self._deepest - depth)
        self._deepest = max(deepest, self._deepest)
        return value

    def _deepen(self, depth: int, node: yaml.Node) -> None:
        """Aliases nest without nesting in the file."""
        self._deepest = max(self._deepest, depth)
        if depth > MAX_DEPTH:
            raise self._error(_TOO_DEEP, node)

    def _add(self, count: int, node: yaml.Node) -> None:
        self._count += count
        if self._count > MAX_VALUES:
            raise self._error(f"holds more than {MAX_VALUES} values, aliases counted", node)

    def _sequence(self, node: yaml.Node, depth: int) -> list[Any]:
        if node.tag != _CORE + "seq":
            raise self._error(f"unknown tag {node.tag}", node)
        return [self.convert(item, depth + 1) for item in node.value]

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        if node.tag != _CORE + "map":
            raise self._error(f"unknown tag {node.tag}", node)
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        first: dict[str, yaml.Node] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error("a key must be text", key, hint="put a value that has {{ … }} in quotes")
            if key.value in first:
                line = first[key.value].start_mark.line + 1
                raise self._error(f"duplicate key '{key.value}'", key, hint=f"it stands in line {line} already")
            first[key.value] = key
            value = self.convert(item, depth + 1)
            if key.value == "<<" and key.tag == _PLAIN:
                for mapping in reversed(value if isinstance(value, list) else [value]):
                    if not isinstance(mapping, dict):
                        raise self._error("`<<` takes a mapping, or a list of mappings", item)
                    merged.update(mapping)
            else:
                own[key.value] = value
        return {**merged, **own} if merged else own

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        if node.tag == _PLAIN:
            return _plain_scalar(text)
        kind = node.tag.removeprefix(_CORE)
        if kind == "str":
            return text
        value = _plain_scalar(text)
        expected = _TAGGED.get(kind)
        if expected is None:
            raise self._error(f"unknown tag {node.tag}", node)
        if not isinstance(value, expected):
            raise self._error(f"'{text}' is not a {kind}", node)
        return float(text) if kind == "float" else value

    def _error(self, message: str, node: yaml.Node, hint: str | None = None) -> ProjectError:
        return ProjectError(message, where=_mark(node, self._shown_as), hint=hint)


def _plain_scalar(text: str) -> Any:
    if text in _SPECIAL:
        return _SPECIAL[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INT.match(text) and len(text) <= 400:
        number = WrittenInt(text, 0 if text[1:2] in ("o", "x") else 10)
    elif _FLOAT.match(text):
        return _written(WrittenFloat(text), text)
    else:
        return text
    return _written(number, text)


def _written(number: WrittenInt | WrittenFloat, text: str) -> int | float:
    if repr(number) == text:
        return int(number) if isinstance(number, int) else float(number)
    number.text = text
    return number


def _mark(node: yaml.Node, shown_as: str) -> Where:
    return Where(shown_as, node.start_mark.line + 1, node.start_mark.column + 1)


def _find(document: Document, path: Sequence[str | int]) -> tuple[Where, Where, yaml.Node | None]:
    """The places of the entry and of its value, and the value's node."""
    if document.root is None:
        where = Where(document.shown_as)
        return where, where, None
    node = document.root
    entry = node
    for step in path:
        found = _step(node, step)
        if found is not None:
            entry, node = found
    return _mark(entry, document.shown_as), _mark(node, document.shown_as), node


def _step(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """The key and value at one step; a number into a mapping counts its entries."""
    if isinstance(node, yaml.MappingNode):
        if isinstance(step, int):
            return node.value[step] if step < len(node.value) else None
        return next(((key, value) for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None
