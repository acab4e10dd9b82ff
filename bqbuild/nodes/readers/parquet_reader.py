"""Parquet: rows as the file types them. Nested values become JSON like everywhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from bqbuild.config.specs import SourceSpec
from bqbuild.core.errors import BuildError, StoreError, Where
from bqbuild.core.records import Column
from bqbuild.nodes.readers.base import MAX_ROWS, Batch
from bqbuild.nodes.source_files import SourceFile
from bqbuild.store.types import columns_of, stored_schema


def read_parquet(file: SourceFile, spec: SourceSpec) -> Iterator[Batch]:
    """One row a row; the line is the row's number, from 1."""
    number = 0
    try:
        with pq.ParquetFile(file.path) as data:
            for batch in data.iter_batches(batch_size=MAX_ROWS):
                rows = batch.to_pylist(maps_as_pydicts="strict")
                yield list(enumerate(rows, start=number + 1))
                number += len(rows)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise _broken(file, error) from error


def parquet_columns(file: SourceFile) -> list[Column]:
    """The columns that the file declares; lists, structs and maps are `json`."""
    try:
        columns = columns_of(stored_schema(pq.read_schema(file.path)))
    except (OSError, pa.ArrowException, StoreError) as error:
        raise _broken(file, error) from error
    nested = ("[]", "struct(", "map(")
    return [
        Column(
            column.name,
            "json" if column.type.endswith(nested[0]) or column.type.startswith(nested[1:]) else column.type,
        )
        for column in columns
    ]


def _broken(file: SourceFile, error: BaseException) -> BuildError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BuildError(f"this Parquet file cannot be read: {text}", where=Where(file.shown_as))
