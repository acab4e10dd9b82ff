"""Column types: DuckDB's names, Arrow's types, and the one form of each in which tables are stored.

A type is stored in the form that DuckDB sees when it reads the Parquet file, so that a table's columns, its views and
its digest agree. Two spellings of one type (`large_string`, a dictionary of strings, `string`) are the same column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from bqbuild.core.errors import StoreError
from bqbuild.core.records import Column

JSON_FIELD = {b"bqbuild.type": b"json"}
"""Metadata of an Arrow field whose strings are JSON text: there is no Arrow type of its own for that."""

ARROW_BY_NAME: dict[str, pa.DataType] = {
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

SPELLINGS = {
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
"""What else users may write in YAML."""

YAML_ONLY = {"integer": "bigint", "float": "double"}
"""Words that mean one thing to DuckDB and another to the people who write YAML; see `yaml_type`."""

# The names of Arrow types that are another spelling of a stored type.
_STORED_AS: tuple[tuple[pa.DataType, pa.DataType], ...] = (
    (pa.large_string(), pa.string()),
    (pa.string_view(), pa.string()),
    (pa.large_binary(), pa.binary()),
    (pa.binary_view(), pa.binary()),
    (pa.float16(), pa.float32()),
    (pa.date64(), pa.date32()),
    (pa.time32("s"), pa.time64("us")),
    (pa.time32("ms"), pa.time64("us")),
    # DuckDB makes an INTEGER of a column that holds nothing but NULL.
    (pa.null(), pa.int32()),
)


def duckdb_type(data_type: pa.DataType) -> str:
    """DuckDB's name of an Arrow type, in lower case but for the names of struct fields.

    Raises StoreError for a type that no table can hold.
    """
    stored = stored_type(data_type)
    if pa.types.is_decimal128(stored):
        return f"decimal({stored.precision},{stored.scale})"
    if pa.types.is_list(stored):
        return f"{duckdb_type(stored.value_type)}[]"
    if pa.types.is_struct(stored):
        return f"struct({', '.join(f'{_quoted(field.name)} {duckdb_type(field.type)}' for field in stored)})"
    if pa.types.is_map(stored):
        return f"map({duckdb_type(stored.key_type)}, {duckdb_type(stored.item_type)})"
    return next(name for name, known in ARROW_BY_NAME.items() if known == stored)


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type that a DuckDB type name stands for, in its stored form. The other spellings of `SPELLINGS` and
    `list<…>` are understood too; case and spacing don't matter. Raises StoreError for an unknown name."""
    parser = _TypeName(name)
    return parser.whole()


def yaml_type(name: str) -> str:
    """DuckDB's name of a type as users write it in YAML, where `integer` is a bigint and `float` a double.

    Raises StoreError for an unknown name.
    """
    text = " ".join(name.lower().split())
    for opening, closing in (("list<", ">"), ("", "[]")):
        if opening + closing and text.startswith(opening) and text.endswith(closing):
            return f"{yaml_type(text[len(opening) : -len(closing)])}[]"
    text = YAML_ONLY.get(text, text)
    return "json" if text == "json" else duckdb_type(arrow_type(name if "(" in text else text))


def stored_type(data_type: pa.DataType) -> pa.DataType:
    """The form in which values of an Arrow type are stored. Raises StoreError for a type that no table can hold."""
    for other, stored in _STORED_AS:
        if data_type == other:
            return stored
    if isinstance(data_type, pa.BaseExtensionType):
        if data_type.extension_name == "arrow.json":
            return pa.string()
        raise _unstorable(data_type)
    if pa.types.is_dictionary(data_type):
        return stored_type(data_type.value_type)
    if pa.types.is_fixed_size_binary(data_type):
        return pa.binary()
    if pa.types.is_decimal(data_type) and data_type.precision <= 38:
        return pa.decimal128(data_type.precision, data_type.scale)
    if pa.types.is_timestamp(data_type):
        unit = "ns" if data_type.unit == "ns" else "us"
        return pa.timestamp(unit, "UTC" if data_type.tz else None)
    nested = _stored_nested(data_type)
    if nested is not None:
        return nested
    if data_type in ARROW_BY_NAME.values():
        return data_type
    raise _unstorable(data_type)


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """`schema` with every type in its stored form, and no metadata but what marks JSON columns.

    Raises StoreError for a type that no table can hold and for a name that is used twice.
    """
    return schema_of(columns_of(schema))


def columns_of(schema: pa.Schema) -> tuple[Column, ...]:
    """The columns of an Arrow schema. Raises StoreError as `stored_schema` does."""
    seen: set[str] = set()
    for name in schema.names:
        if name in seen:
            raise StoreError(f"a table cannot have two columns named `{name}`")
        seen.add(name)
    return tuple(Column(field.name, _field_type(field)) for field in schema)


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema in which a table of `columns` is stored."""
    return pa.schema([_field(column) for column in columns])


def conformed(data: pa.RecordBatch | pa.Table, schema: pa.Schema) -> pa.Table:
    """`data` as a table of exactly `schema`: columns by name, dictionaries decoded, values cast where nothing is lost.

    Raises StoreError where a column is missing or too many, or a value does not fit.
    """
    table = pa.Table.from_batches([data]) if isinstance(data, pa.RecordBatch) else data
    if table.schema.equals(schema, check_metadata=True):
        return table
    if sorted(table.schema.names) != sorted(schema.names):
        raise StoreError(f"rows have the columns {table.schema.names}, the table has {schema.names}")
    arrays = [_cast(table.column(field.name), field) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _cast(values: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if isinstance(values.type, pa.BaseExtensionType):
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], values.type.storage_type)
    if values.type == field.type:
        return values
    try:
        return values.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise StoreError(f"column `{field.name}` does not fit its type {duckdb_type(field.type)}: {error}") from error


def _field(column: Column) -> pa.Field:
    return pa.field(column.name, arrow_type(column.type), metadata=JSON_FIELD if column.type == "json" else None)


def _field_type(field: pa.Field) -> str:
    marked = (field.metadata or {}).get(b"bqbuild.type") == b"json"
    if isinstance(field.type, pa.BaseExtensionType):
        marked = marked or field.type.extension_name == "arrow.json"
    name = duckdb_type(field.type)
    return "json" if marked and name == "varchar" else name


def _stored_nested(data_type: pa.DataType) -> pa.DataType | None:
    list_like = (
        pa.types.is_list(data_type)
        or pa.types.is_large_list(data_type)
        or pa.types.is_fixed_size_list(data_type)
        or pa.types.is_list_view(data_type)
        or pa.types.is_large_list_view(data_type)
    )
    if list_like:
        return pa.list_(stored_type(data_type.value_type))
    if pa.types.is_struct(data_type):
        if not data_type.num_fields:
            raise StoreError("a table cannot hold a struct without fields")
        return pa.struct([pa.field(field.name, stored_type(field.type)) for field in data_type])
    if pa.types.is_map(data_type):
        return pa.map_(stored_type(data_type.key_type), stored_type(data_type.item_type))
    return None


def _unstorable(data_type: pa.DataType) -> StoreError:
    return StoreError(
        f"a table cannot hold values of type {data_type}", hint="cast the column, to varchar for instance"
    )


def _quoted(name: str) -> str:
    plain = name.isidentifier() and name.isascii()
    return name if plain else '"' + name.replace('"', '""') + '"'


class _TypeName:
    """Reads a type name by recursive descent:

    type  = base '[]'*
    base  = 'list<' type '>' | 'struct(' (name type),+ ')' | 'map(' type ',' type ')' | 'decimal(' n ',' n ')' | word+
    """

    def __init__(self, text: str) -> None:
        self.text = text
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
        word = SPELLINGS.get(word, word)
        if word in ARROW_BY_NAME:
            return ARROW_BY_NAME[word]
        if word.startswith("decimal("):
            return arrow_type(word)
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
            hint="types are varchar, bigint, double, boolean, json, date, timestamp, decimal(18,3), and varchar[] for a list",
        )
