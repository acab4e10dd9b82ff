"""Sorts the rows of Parquet files by their `ORDER` column: in memory when they are few, through DuckDB otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bqbuild.core.errors import StoreError
from bqbuild.store.base import ORDER
from bqbuild.store.disk import disk_errors

IN_MEMORY_BYTES = 64 << 20
SORT_MEMORY = "512MB"
PIECE_ROWS = 1 << 14


def sorted_tables(
    paths: Sequence[Path], schema: pa.Schema, scratch: Path, in_memory_bytes: int = IN_MEMORY_BYTES
) -> Iterator[pa.Table]:
    """The rows of `paths` by `ORDER` (bytes compare), without that column, in pieces of bounded size.

    `schema` is that of the files. Inputs larger than `in_memory_bytes`, unpacked, spill to `scratch`. Raises StoreError
    (a full disk …).
    """
    if _uncompressed_bytes(paths) <= in_memory_bytes:
        with disk_errors(scratch):
            # in one chunk: to take rows of many, Arrow copies all of them each time
            rows = pa.concat_tables(pq.read_table(path) for path in paths).combine_chunks()
        order = pc.sort_indices(rows, [(ORDER, "ascending")])
        rows = rows.drop_columns([ORDER])
        for start in range(0, len(order), PIECE_ROWS):
            yield rows.take(order.slice(start, PIECE_ROWS))
    else:
        yield from _sorted_on_disk(paths, schema, scratch)


def _uncompressed_bytes(paths: Sequence[Path]) -> int:
    total = 0
    for path in paths:
        with disk_errors(path):
            metadata = pq.read_metadata(path)
        total += sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return total


def _sorted_on_disk(paths: Sequence[Path], schema: pa.Schema, scratch: Path) -> Iterator[pa.Table]:
    columns = ", ".join('"' + name.replace('"', '""') + '"' for name in schema.names if name != ORDER)
    options: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": SORT_MEMORY,
        "temp_directory": str(scratch / "sort"),
        "threads": "2",
    }
    try:
        with duckdb.connect(config=options) as connection:
            files = connection.read_parquet([str(path) for path in paths])
            for batch in files.order(ORDER).project(columns).to_arrow_reader(PIECE_ROWS):
                yield pa.Table.from_batches([batch])
    except duckdb.Error as error:
        raise StoreError(
            f"cannot sort the rows of a table in {scratch}: {error}",
            hint="free some space (or raise the quota) and run again; everything recorded so far is kept",
        ) from error
