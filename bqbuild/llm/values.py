"""From what a reply holds to the value of a column: types, labels, and text that a table can hold. Pure."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bqbuild.config.specs import OutputColumn
from bqbuild.core.errors import BqError
from bqbuild.llm.json_reply import Number


class Unusable(BqError):
    """A reply that makes no row. `reason` is `unparsable`, `truncated`, `refused` or `empty`; `hint` is what the LLM
    should have written, for the re-ask."""

    def __init__(self, reason: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ValueType:
    """A column's type: `string`, `integer`, `number`, `boolean`, `json`, or `list` of `item`."""

    name: str
    item: ValueType | None = None


_NAMES = {
    **dict.fromkeys(("string", "str", "text", "varchar"), "string"),
    **dict.fromkeys(("int", "integer", "bigint", "int64", "long"), "integer"),
    **dict.fromkeys(("float", "number", "double", "float64", "real"), "number"),
    **dict.fromkeys(("bool", "boolean"), "boolean"),
    "json": "json",
}
_LIST = re.compile(r"(?:list|array)<(.+)>|(.+)\[\]")
_LONG = range(-(2**63), 2**63)
_INTEGER = re.compile(r"[+-]?\d{1,20}(?:\.0{1,20})?")
_NUMBER = re.compile(r"[+-]?(?:\d{1,400}(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_DRESS = " \t\r\n\"'`*_.,:;!()[]{}<>#\u201c\u201d\u2018\u2019\u3002\uff0c"
_NEGATION = re.compile(r"(?:\bnot|\bno|n't|\bnever|\bneither|\bnor|\bthan)\s+(?:\w+\s+)?$", re.IGNORECASE)
_OUT_OF = re.compile(r"(\d)\s*(?:/|\bout of\b)\s*\d+")
_WIDE = "\u2e80"
"""From here on scripts (Chinese, Japanese, Korean) put no space between words."""


@lru_cache(maxsize=256)
def value_type(text: str) -> ValueType:
    """The type that a declaration spells. Raises ValueError for one that replies cannot make."""
    plain = text.strip().lower()
    if plain in _NAMES:
        return ValueType(_NAMES[plain])
    if plain in ("list", "array"):
        return ValueType("list", ValueType("string"))
    if match := _LIST.fullmatch(plain):
        return ValueType("list", value_type(match[1] or match[2]))
    raise ValueError(f"'{text}' is no type that a reply can make: use string, int, float, bool, json or list<...>")


def column_type(column: OutputColumn) -> ValueType:
    """The type of a column's values; a scale is one of integers where nothing else is said."""
    if column.scale is not None and column.type == "string":
        return ValueType("integer")
    return value_type(column.type)


def column_value(name: str, column: OutputColumn, value: Any) -> Any:
    """`value` as the column wants it. Raises Unusable where it cannot be that."""
    kind = column_type(column)
    if value is None:
        raise Unusable("unparsable", f"column `{name}` is null")
    if not column.labels:
        return coerce(name, kind, value)
    if kind.name == "list":
        items = value if isinstance(value, list) else [value]
        return [_label_value(name, column.labels, kind.item or kind, item) for item in items]
    return _label_value(name, column.labels, kind, value)


def _label_value(name: str, labels: tuple[str, ...], kind: ValueType, value: Any) -> Any:
    text = _scalar_text(value)
    label = match_label(text, labels) if text is not None else None
    if label is None:
        raise Unusable("unparsable", f"column `{name}` is {_shown(value)}, not one of {_listed(labels)}")
    return coerce(name, kind, label)


def coerce(name: str, kind: ValueType, value: Any) -> Any:
    """`value` as a value of `kind`; texts that spell a number or a truth value count. Raises Unusable."""
    result = _COERCE[kind.name](kind, value, name)
    if result is None:
        raise Unusable("unparsable", f"column `{name}` is {_shown(value)}, not {_article(kind)}")
    return result


def storable(text: str) -> str:
    """`text` with the characters that no table can hold (NUL, lone surrogates) replaced by U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def match_label(text: str, labels: tuple[str, ...]) -> str | None:
    """The one label that `text` means, or None.

    In this order: the whole text, its first and its last line (dressing, case and a leading `Name:` aside), the only
    label mentioned anywhere, the label that the text starts with. A mention after a `not` counts for nothing.
    """
    text = text.strip()
    if all(label.strip().isdecimal() for label in labels):
        text = _OUT_OF.sub(r"\1", text)
    known = {label.strip().casefold(): label for label in labels}
    lines = text.splitlines() or [""]
    for part in (text, lines[0], lines[-1], lines[-1].rpartition(":")[2], lines[0].rpartition(":")[2]):
        if label := _exactly(part, known):
            return label
    pattern = _mention_pattern(labels)
    mentions = list(pattern.finditer(text[:20_000]))
    if any(_NEGATION.search(text[max(0, match.start() - 30) : match.start()]) for match in mentions):
        return None
    if len({match[0].casefold() for match in mentions}) == 1:
        return known.get(mentions[0][0].casefold())
    if (
        mentions
        and mentions[0].start() == 0
        and text[mentions[0].end() :].lstrip(" *\"'`")[:1] in (*".:(/-", "\u2013", "\u2014")
    ):
        return known.get(mentions[0][0].casefold())
    return None


def _exactly(text: str, known: dict[str, str]) -> str | None:
    for form in (text.strip(), text.strip(_DRESS)):
        if (label := known.get(form.casefold())) is not None:
            return label
        if _INTEGER.fullmatch(form) and (label := known.get(form.partition(".")[0].lstrip("+"))) is not None:
            return label
    return None


@lru_cache(maxsize=64)
def _mention_pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Any label at word boundaries; the longest first, so that `computer science` is no mention of `science`."""
    forms = []
    for label in sorted({label.strip() for label in labels if label.strip()}, key=len, reverse=True):
        before = r"(?<![\w-])(?<!\d\.)" if label[0].isalnum() and label[0] < _WIDE else ""
        after = r"(?!\w)(?![.,]\d)" if label[-1].isalnum() and label[-1] < _WIDE else ""
        forms.append(f"{before}{re.escape(label)}{after}")
    return re.compile("|".join(forms) or r"(?!)", re.IGNORECASE)


def _text(kind: ValueType, value: Any, name: str) -> str | None:
    text = _scalar_text(value)
    return None if text is None else storable(text)


def _scalar_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _integer(kind: ValueType, value: Any, name: str) -> int | None:
    text = value.strip() if isinstance(value, str) else ""
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text.partition(".")[0])
    return number if number in _LONG else None


def _number(kind: ValueType, value: Any, name: str) -> float | None:
    text = value.strip() if isinstance(value, str) else ""
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _boolean(kind: ValueType, value: Any, name: str) -> bool | None:
    if isinstance(value, bool):
        return value
    text = value.strip(_DRESS).casefold() if isinstance(value, str) else ""
    return True if text in _TRUE else False if text in _FALSE else None


def _list(kind: ValueType, value: Any, name: str) -> list[Any] | None:
    if isinstance(value, dict) or kind.item is None:
        return None
    items = value if isinstance(value, list) else [value]
    return [coerce(name, kind.item, item) for item in items]


def _json(kind: ValueType, value: Any, name: str) -> str | None:
    return storable(json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")))


def _plain(value: Any) -> Any:
    """`value` without `Number`s: those that JSON can say become numbers, others (1e999) stay text."""
    if isinstance(value, Number):
        if _INTEGER.fullmatch(value) and "." not in value:
            return int(value)
        return number if math.isfinite(number := float(value)) else str(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


_COERCE = {
    "string": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "list": _list,
    "json": _json,
}


def _article(kind: ValueType) -> str:
    names = {"string": "a text", "integer": "an integer", "number": "a number", "boolean": "true or false"}
    return names.get(kind.name, "a list")


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = storable(str(value))
    return f"'{text[:60]}...'" if len(text) > 60 else f"'{text}'"


def _listed(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:12])
    return f"{shown} ... ({len(labels)} labels)" if len(labels) > 12 else shown
