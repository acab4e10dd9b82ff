"""Column types: DuckDB's names, Arrow's types, and the one form of each in which tables are stored.

A type is stored in the form that DuckDB sees when it reads the Parquet file, so that a table's columns, its views and
its digest agree. Two spellings of one type (`large_string`, a dictionary of strings, `string`) are the same column.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from bqbuild.core.errors import StoreError
from bqbuild.core.records import Column
from bqbuild.store.typenames import ARROW_BY_NAME, SPELLINGS, WRITTEN, parse_type

JSON_FIELD = {b"bqbuild.type": b"json"}
"""Metadata of an Arrow field whose strings are JSON text: there is no Arrow type of its own for that."""

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
    """The Arrow type that people mean by `name` in YAML: DuckDB's names, `string`, `int`, `list<string>` … Here an
    `integer` is a bigint and a `float` a double; `column_type` reads the names of columns. Raises StoreError."""
    return parse_type(name, WRITTEN)


def yaml_type(name: str) -> str:
    """DuckDB's name of a type as people write it in YAML. Raises StoreError for an unknown name."""
    written = arrow_type(name)
    return "json" if name.strip().lower() == "json" else duckdb_type(written)


def column_type(name: str) -> pa.DataType:
    """The Arrow type in which a column with DuckDB's type `name` is stored. Raises StoreError for an unknown name."""
    return parse_type(name, SPELLINGS)


def stored_type(data_type: pa.DataType) -> pa.DataType:
    """The form in which values of an Arrow type are stored. Raises StoreError for a type that no table can hold."""
    stored = next((stored for other, stored in _STORED_AS if data_type == other), None)
    stored = stored or _stored_parametric(data_type) or _stored_nested(data_type)
    if stored is None and data_type in ARROW_BY_NAME.values():
        stored = data_type
    if stored is None:
        raise StoreError(
            f"a table cannot hold values of type {data_type}", hint="cast the column, to varchar for instance"
        )
    return stored


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """`schema` with every type in its stored form, and no metadata but what marks JSON columns.

    Raises StoreError for a type that no table can hold and for a name that is used twice.
    """
    return schema_of(columns_of(schema))


def columns_of(schema: pa.Schema) -> tuple[Column, ...]:
    """The columns of an Arrow schema. Raises StoreError as `stored_schema` does."""
    seen: dict[str, str] = {}
    for name in schema.names:
        if name.lower() in seen:
            other = seen[name.lower()]
            also = "" if other == name else f" and `{other}`: DuckDB does not tell upper from lower case"
            raise StoreError(f"a table cannot have two columns named `{name}`{also}")
        seen[name.lower()] = name
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
    return pa.field(column.name, column_type(column.type), metadata=JSON_FIELD if column.type == "json" else None)


def _field_type(field: pa.Field) -> str:
    marked = (field.metadata or {}).get(b"bqbuild.type") == b"json"
    if isinstance(field.type, pa.BaseExtensionType):
        marked = marked or field.type.extension_name == "arrow.json"
    name = duckdb_type(field.type)
    return "json" if marked and name == "varchar" else name


def _stored_parametric(data_type: pa.DataType) -> pa.DataType | None:
    stored = None
    if isinstance(data_type, pa.BaseExtensionType):
        stored = pa.string() if data_type.extension_name == "arrow.json" else None
    elif pa.types.is_dictionary(data_type):
        stored = stored_type(data_type.value_type)
    elif pa.types.is_fixed_size_binary(data_type):
        stored = pa.binary()
    elif pa.types.is_decimal(data_type) and data_type.precision <= 38:
        stored = pa.decimal128(data_type.precision, data_type.scale)
    elif pa.types.is_timestamp(data_type):
        stored = pa.timestamp("ns" if data_type.unit == "ns" else "us", "UTC" if data_type.tz else None)
    return stored


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


def _quoted(name: str) -> str:
    plain = name.isidentifier() and name.isascii()
    return name if plain else '"' + name.replace('"', '""') + '"'
