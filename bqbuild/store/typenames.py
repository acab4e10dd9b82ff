"""The names of column types: DuckDB's, and what people write instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from bqbuild.core.errors import StoreError

ARROW_BY_NAME: Mapping[str, pa.DataType] = {
    "varchar": pa.string(),
    "json": pa.string(),
    "boolean": pa.bool_(),
    "tinyint": pa.int8(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "utinyint": pa.uint8(),
    "usmallint": pa.uint16(),
    "uinteger": pa.uint32(),
    "ubigint": pa.uint64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "blob": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "time_ns": pa.time64("ns"),
    "timestamp": pa.timestamp("us"),
    "timestamp_ns": pa.timestamp("ns"),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "timestamptz_ns": pa.timestamp("ns", "UTC"),
}

SPELLINGS: Mapping[str, str] = {
    "string": "varchar",
    "str": "varchar",
    "text": "varchar",
    "int": "bigint",
    "int64": "bigint",
    "long": "bigint",
    "int32": "integer",
    "int16": "smallint",
    "int8": "tinyint",
    "number": "double",
    "float64": "double",
    "real": "float",
    "float32": "float",
    "bool": "boolean",
    "bytes": "blob",
    "binary": "blob",
    "datetime": "timestamp",
    "timestamptz": "timestamp with time zone",
    "hugeint": "decimal(38,0)",
    "decimal": "decimal(18,3)",
}
"""What else DuckDB and Arrow users write."""

WRITTEN: Mapping[str, str] = {**SPELLINGS, "integer": "bigint", "float": "double"}
"""What people mean in YAML, where an `integer` is no shorter than an `int`."""


def parse_type(name: str, spellings: Mapping[str, str]) -> pa.DataType:
    """The Arrow type that `name` stands for, `spellings` considered. Case and spacing don't matter.

    Raises StoreError for an unknown name.
    """
    return _TypeName(name, spellings).whole()


class _TypeName:
    """Reads a type name by recursive descent:

    type  = base '[]'*
    base  = 'list<' type '>' | 'struct(' (name type),+ ')' | 'map(' type ',' type ')' | 'decimal(' n ',' n ')' | word+
    """

    def __init__(self, text: str, spellings: Mapping[str, str]) -> None:
        self.text = text
        self.spellings = spellings
        self.at = 0

    def whole(self) -> pa.DataType:
        parsed = self._type()
        if self.at != len(self.text.rstrip()):
            raise self._unknown()
        return parsed

    def _type(self) -> pa.DataType:
        parsed = self._base()
        while self._take("[]"):
            parsed = pa.list_(parsed)
        return parsed

    def _base(self) -> pa.DataType:
        word = self._words()
        if word == "list" and self._take("<"):
            item = self._type()
            self._need(">")
            return pa.list_(item)
        if word in ("decimal", "numeric") and self._take("("):
            return self._decimal()
        if word == "map" and self._take("("):
            key = self._type()
            self._need(",")
            value = self._type()
            self._need(")")
            return pa.map_(key, value)
        if word == "struct" and self._take("("):
            return self._struct()
        word = self.spellings.get(word, word)
        if word in ARROW_BY_NAME:
            return ARROW_BY_NAME[word]
        if word.startswith("decimal("):
            return parse_type(word, {})
        raise self._unknown()

    def _decimal(self) -> pa.DataType:
        precision = self._number()
        scale = self._number() if self._take(",") else 0
        self._need(")")
        if not 1 <= precision <= 38 or not 0 <= scale <= precision:
            raise self._unknown()
        return pa.decimal128(precision, scale)

    def _struct(self) -> pa.DataType:
        fields = []
        while True:
            name = self._name()
            fields.append(pa.field(name, self._type()))
            if not self._take(","):
                self._need(")")
                return pa.struct(fields)

    def _skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _take(self, mark: str) -> bool:
        self._skip()
        found = self.text.startswith(mark, self.at)
        self.at += len(mark) if found else 0
        return found

    def _need(self, mark: str) -> None:
        if not self._take(mark):
            raise self._unknown()

    def _words(self) -> str:
        self._skip()
        start = self.at
        while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] in "_ "):
            self.at += 1
        return " ".join(self.text[start : self.at].lower().split())

    def _number(self) -> int:
        self._skip()
        start = self.at
        while self.at < len(self.text) and self.text[self.at].isdecimal():
            self.at += 1
        if start == self.at:
            raise self._unknown()
        return int(self.text[start : self.at])

    def _name(self) -> str:
        self._skip()
        if not self._take('"'):
            start = self.at
            while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] == "_"):
                self.at += 1
            return self.text[start : self.at]
        parts: Sequence[str] = []
        while True:
            end = self.text.find('"', self.at)
            if end < 0:
                raise self._unknown()
            parts = [*parts, self.text[self.at : end]]
            self.at = end + 1
            if not self.text.startswith('"', self.at):
                return '"'.join(parts)
            self.at += 1

    def _unknown(self) -> StoreError:
        return StoreError(
            f"unknown type `{self.text}`",
            hint="types are varchar, bigint, double, boolean, json, date, timestamp, decimal(18,3), varchar[] …",
        )
