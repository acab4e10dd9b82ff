"""The types of a source's columns: guessed once from the data, then enforced.

A guess is one of bigint, double, boolean, varchar, json (nested values); where kinds meet, the narrowest type that
holds all of them wins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa

from bqbuild.core.errors import BuildError, Where
from bqbuild.core.records import LINEAGE_COLUMNS, Column
from bqbuild.nodes.readers.base import Batch
from bqbuild.nodes.source_files import SourceFile
from bqbuild.store.types import arrow_type

BIGINT_MIN, BIGINT_MAX = -(2**63), 2**63 - 1

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NULL, _BOOL, _INT, _FLOAT_KIND, _TEXT, _NESTED, _HUGE = 0, 1, 2, 4, 8, 16, 32
_KIND_BY_TYPE: Mapping[type, int] = {
    type(None): _NULL,
    bool: _BOOL,
    int: _INT,
    float: _FLOAT_KIND,
    str: _TEXT,
    dict: _NESTED,
    list: _NESTED,
}


class TypeGuess:
    """What has been seen of each column, in the order in which columns were first seen."""

    def __init__(self, *, textual: bool) -> None:
        self._textual = textual
        self._kinds: dict[str, int] = {}

    def see(self, batch: Batch) -> None:
        """Take a batch of rows into account."""
        kinds, kind_of = self._kinds, self._kind
        for _, row in batch:
            for name, value in row.items():
                kind = kind_of(value)
                if name not in kinds or kind & ~kinds[name]:
                    kinds[name] = kinds.get(name, 0) | kind

    def columns(self) -> list[Column]:
        """The guess. A column that is always NULL is varchar."""
        return [Column(name, _type_of(kinds)) for name, kinds in self._kinds.items()]

    def _kind(self, value: object) -> int:
        kind = _KIND_BY_TYPE.get(type(value), _TEXT)
        if kind == _TEXT and self._textual:
            return _kind_of_text(str(value))
        if kind == _INT and not BIGINT_MIN <= value <= BIGINT_MAX:  # type: ignore[operator]  # it is an int
            return _HUGE
        return kind


def _kind_of_text(text: str) -> int:
    if _INTEGER.fullmatch(text):
        return _INT if BIGINT_MIN <= int(text) <= BIGINT_MAX else _HUGE
    if _FLOAT.fullmatch(text):
        return _FLOAT_KIND
    return _BOOL if text.lower() in ("true", "false") else _TEXT


def _type_of(kinds: int) -> str:
    if kinds & _NESTED:
        return "json"
    if kinds in (_NULL, _HUGE, _HUGE | _INT) or kinds & _TEXT:
        return "varchar"
    if kinds == _BOOL:
        return "boolean"
    if kinds & _BOOL:
        return "varchar"
    return "bigint" if kinds == _INT else "double"


class DoesNotFitError(ValueError):
    """A value is not of its column's type."""


class Typed:
    """Turns rows into Arrow columns of declared types."""

    def __init__(self, columns: Sequence[Column], *, textual: bool) -> None:
        self.columns = tuple(columns)
        self._textual = textual
        self._names = frozenset(column.name for column in columns)
        self._casts = {column.name: _cast_for(column.type, textual) for column in columns}

    def unknown(self, batch: Batch) -> set[str]:
        """The columns that rows of the batch have and the types don't."""
        known = self._names
        return {name for _, row in batch if not row.keys() <= known for name in row.keys() - known}

    def values(self, file: SourceFile, batch: Batch) -> dict[str, list[Any]]:
        """The values of each column. Raises BuildError, with file and line, for one that does not fit."""
        return {column.name: self._column(file, batch, column) for column in self.columns}

    def _column(self, file: SourceFile, batch: Batch, column: Column) -> list[Any]:
        name, cast = column.name, self._casts[column.name]
        values = [row.get(name) for _, row in batch]
        if not self._textual and _fits_as_it_is(values, column.type):
            return values
        try:
            return [None if value is None else cast(value) for value in values]
        except (DoesNotFitError, pa.ArrowException):
            for (line, _), value in zip(batch, values, strict=True):
                try:
                    None if value is None else cast(value)
                except (DoesNotFitError, pa.ArrowException):
                    raise _misfit(file, line, column, value) from None
            raise


def _fits_as_it_is(values: list[Any], type_name: str) -> bool:
    """Whether a look at the Python types tells that no value needs a cast: the usual case, and ten times as fast."""
    expected = _AS_IT_IS.get(type_name)
    types = set(map(type, values)) - {type(None)}
    if expected is None or not types <= {expected}:
        return False
    if expected is int:
        numbers = [value for value in values if value is not None]
        return not numbers or (min(numbers) >= BIGINT_MIN and max(numbers) <= BIGINT_MAX)
    return True


_AS_IT_IS: Mapping[str, type] = {"bigint": int, "double": float, "boolean": bool, "varchar": str}


def _misfit(file: SourceFile, line: int, column: Column, value: object) -> BuildError:
    shown = value if isinstance(value, str) else _json(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "…"
    return BuildError(
        f"column `{column.name}` is {column.type}, and {shown!r} is not",
        where=Where(file.shown_as, line),
        hint="correct the value, declare another type in the source's `columns:`, or run "
        "`bqbuild parse --update-sources` to infer the types again",
    )


def _cast_for(type_name: str, textual: bool) -> Callable[[Any], Any]:
    if textual and type_name in _TEXT_CASTS:
        return _TEXT_CASTS[type_name]
    return _CASTS.get(type_name) or _arrow_cast(type_name)


def _to_bigint(value: object) -> int:
    if isinstance(value, bool):
        raise DoesNotFitError
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and BIGINT_MIN <= value <= BIGINT_MAX:
        return value
    raise DoesNotFitError


def _to_double(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise DoesNotFitError
    try:
        return float(value)
    except OverflowError as error:
        raise DoesNotFitError from error


def _to_boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise DoesNotFitError


def _to_varchar(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        raise DoesNotFitError
    return _scalar_text(value)


def _json(value: object) -> str:
    try:
        return orjson.dumps(value, default=_scalar_text, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # orjson.JSONEncodeError is one: an integer of more than 64 bits, most likely
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise DoesNotFitError from error


def _scalar_text(value: object) -> str:
    """A scalar as text: JSON's form where it has one, ISO for what Parquet brings beyond JSON."""
    match value:
        case bytes():
            return value.hex()
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta() | Decimal():
            return str(value)
        case int() if not isinstance(value, bool):
            return str(value)
    return _json(value)


def _text_to_bigint(value: object) -> int:
    text = str(value).strip()
    if re.fullmatch(r"[+-]?[0-9]+", text):
        return _to_bigint(int(text))
    raise DoesNotFitError


def _text_to_double(value: object) -> float:
    try:
        return float(str(value))
    except ValueError as error:
        raise DoesNotFitError from error


def _text_to_boolean(value: object) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "false"):
        return text == "true"
    raise DoesNotFitError


def _text_to_json(value: object) -> str:
    try:
        return orjson.dumps(orjson.loads(str(value))).decode()
    except orjson.JSONDecodeError as error:
        raise DoesNotFitError from error


_CASTS: Mapping[str, Callable[[Any], Any]] = {
    "bigint": _to_bigint,
    "double": _to_double,
    "boolean": _to_boolean,
    "varchar": _to_varchar,
    "json": _json,
}
_TEXT_CASTS: Mapping[str, Callable[[Any], Any]] = {
    "bigint": _text_to_bigint,
    "double": _text_to_double,
    "boolean": _text_to_boolean,
    "json": _text_to_json,
}


def _arrow_cast(type_name: str) -> Callable[[Any], Any]:
    """Any other type: a value of it, or text that Arrow can read as one (dates, times, decimals)."""
    target = arrow_type(type_name)

    def cast(value: Any) -> Any:
        try:
            if isinstance(value, str) and not pa.types.is_string(target):
                return pa.scalar(value, pa.string()).cast(target).as_py()
            return pa.scalar(value, target).as_py()
        except (
            TypeError,
            ValueError,
            OverflowError,
        ) as error:  # ArrowInvalid is a ValueError
            raise DoesNotFitError from error

    return cast


def check_names(file: SourceFile, names: Iterable[str]) -> None:
    """Raises BuildError for a column without a name, and for one that is called like another or like bqbuild's own:
    in tables, upper and lower case are one."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        problem = ""
        if not name:
            problem = "a column has no name"
        elif name.lower() in LINEAGE_COLUMNS:
            problem = f"a column is called `{name}`, a name that bqbuild keeps for itself"
        elif other != name:
            problem = f"columns are called `{other}` and `{name}`, which are one name in SQL"
        if problem:
            raise BuildError(problem, where=Where(file.shown_as), hint="rename it in the file")
