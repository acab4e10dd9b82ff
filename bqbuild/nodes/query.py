"""One SQL query over streams of batches, in DuckDB, with the outside world shut off; what exceeds memory is spilled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from bqbuild.core.errors import BqError, BuildError, Where
from bqbuild.store.types import columns_of

MEMORY_LIMIT = "2GB"

SAME_EVERYWHERE = "SET TimeZone = 'UTC'; SET Calendar = 'gregorian'"
"""What DuckDB would take from the machine: rows must not depend on where they are looked at."""


@dataclass(slots=True)
class Stream:
    """Batches of one schema, read once. An error of ours that ends the stream is kept, so that it can be told."""

    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]
    error: BqError | None = None

    def reader(self) -> pa.RecordBatchReader:
        """The batches as DuckDB takes them."""
        return pa.RecordBatchReader.from_batches(self.schema, self._read())

    def _read(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self.batches
        except BqError as error:
            self.error = error
            raise


def query(sql: str, streams: Mapping[str, Stream], scratch: Path, *, what: str, where: Where | None) -> pa.Table:
    """The result of `sql` over the streams by name, whole: ask for positions and figures, not for texts.

    Raises BuildError, saying `what` failed and `where` it was written, for what DuckDB does not accept.
    """
    spill = scratch / "spill"
    spill.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(":memory:", config={"temp_directory": str(spill), "memory_limit": MEMORY_LIMIT}) as connection:
        connection.execute(f"{SAME_EVERYWHERE}; SET python_enable_replacements=false; SET enable_external_access=false")
        connection.execute("SET lock_configuration=true")
        try:
            for name, stream in streams.items():
                connection.register(f"{name}_stream", stream.reader())
                connection.execute(f"CREATE TEMP VIEW {name} AS SELECT {typed(stream.schema)} FROM {name}_stream")
            return connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            broken = next((stream.error for stream in streams.values() if stream.error), None)
            if broken is not None:
                raise broken from error
            raise BuildError(f"{what}: {first_line(error)}", where=where, hint=hint_of(error)) from error


def mentioned(text: str, names: Iterable[str]) -> list[str]:
    """The columns that a SQL expression may read: those whose name occurs in it. One too many does no harm."""
    lowered = text.lower().replace('""', '"')
    return [name for name in names if "columns" in lowered or name.lower() in lowered]


def quoted(name: str) -> str:
    """A name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def first_line(error: BaseException) -> str:
    """What DuckDB complains of, without the picture of the query below it."""
    return str(error).strip().splitlines()[0]


def typed(schema: pa.Schema) -> str:
    """The columns of a schema as SQL selects them, JSON columns as JSON."""
    casts = (
        f"{quoted(column.name)}::JSON AS {quoted(column.name)}" if column.type == "json" else quoted(column.name)
        for column in columns_of(schema)
    )
    return ", ".join(casts)


def hint_of(error: duckdb.Error) -> str | None:
    """What to do about an error in an expression over a row."""
    if isinstance(error, duckdb.ConversionException):
        return "`try_cast(… as …)` gives NULL where a value does not fit"
    if isinstance(error, duckdb.BinderException) and "not found in FROM clause" in str(error):
        return "a rule reads the columns of the filter's input"
    return None
