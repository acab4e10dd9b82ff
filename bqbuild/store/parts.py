"""Writes the Parquet files of one table into scratch, with its digest on the way, and sorts them where asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bqbuild.core.errors import StoreError
from bqbuild.core.hashing import Digest, digest_file
from bqbuild.core.records import ID, Column, DataFile, Table
from bqbuild.store.base import ORDER
from bqbuild.store.content import remove_tree
from bqbuild.store.digests import ContentDigest, Lane, value_lanes
from bqbuild.store.disk import disk_errors
from bqbuild.store.sorting import sorted_tables
from bqbuild.store.types import columns_of, conformed, schema_of

GROUP_ROWS = 1 << 16
GROUP_BYTES = 32 << 20
PART_ROWS = 1 << 20
PART_BYTES = 256 << 20
"""A row group is what a reader holds in memory; a part is what engines share out among threads and machines."""

Publish = Callable[[Path, Table], Table]


class PartsWriter:
    """The writer of one table. Use from one thread at a time; `commit` or `abort` ends it."""

    def __init__(self, schema: pa.Schema, *, scratch: Path, publish: Publish, ordered: bool) -> None:
        self._columns = columns_of(schema)
        self._folder = scratch / f"table-{uuid4().hex}"
        self._publish = publish
        self._ended = False
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True)
        self._unsorted = (
            _Files(self._folder, (Column(ORDER, "blob"), *self._columns), name="unsorted") if ordered else None
        )
        self._parts = _Parts(self._folder, self._columns)

    def write(self, data: pa.RecordBatch | pa.Table) -> None:
        """Add rows, by column name. Raises StoreError where they don't fit the schema or the disk is full."""
        self._check_open()
        (self._unsorted or self._parts).write(data)

    def commit(self) -> Table:
        """Make the table appear, whole, under the digest of its content; an equal table is reused.

        Raises StoreError for two rows with one `_bq_id`, for a row without, and for a full disk.
        """
        self._check_open()
        try:
            if self._unsorted is not None:
                for rows in sorted_tables(self._unsorted.close(), self._unsorted.schema, self._folder):
                    self._parts.write(rows)
                for path in self._unsorted.paths:
                    path.unlink()
            return self._publish(self._folder, self._parts.table())
        finally:
            self.abort()

    def abort(self) -> None:
        """Forget what was written."""
        self._ended = True
        for files in (self._unsorted, self._parts):
            if files is not None:
                files.discard()
        remove_tree(self._folder)

    def _check_open(self) -> None:
        if self._ended:
            raise StoreError("this table was committed or aborted already")


class _Files:
    """Parquet files `<name>-0000.parquet` … of one schema, in row groups and files of bounded size."""

    def __init__(self, folder: Path, columns: tuple[Column, ...], *, name: str) -> None:
        self.schema = schema_of(columns)
        self.paths: list[Path] = []
        self._folder = folder
        self._name = name
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._open: pq.ParquetWriter | None = None
        self._rows = 0
        self._bytes = 0

    def write(self, data: pa.RecordBatch | pa.Table) -> None:
        rows = conformed(data, self.schema)
        for start in range(0, rows.num_rows, GROUP_ROWS):
            self._wait(rows.slice(start, GROUP_ROWS))

    def close(self) -> list[Path]:
        """End the last file; there is always one, if only to say what the columns are."""
        self._write_group()
        if not self.paths:
            self._writer()
        self._end_file()
        return self.paths

    def discard(self) -> None:
        """Let go of an open file whose content nobody wants."""
        if self._open is not None:
            with suppress(OSError):  # a full disk: the file is thrown away anyway
                self._open.close()
            self._open = None

    def _wait(self, rows: pa.Table) -> None:
        """Keep rows until they make a row group. Batches that share one big buffer count as what they reach of it."""
        if rows.num_rows > 1 and rows.nbytes > GROUP_BYTES:
            half = rows.num_rows // 2
            self._wait(rows.slice(0, half))
            self._wait(rows.slice(half))
            return
        if self._waiting_rows + rows.num_rows > GROUP_ROWS or self._waiting_bytes + rows.nbytes > GROUP_BYTES:
            self._write_group()
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        self._waiting_bytes += rows.nbytes

    def _write_group(self) -> None:
        if not self._waiting_rows:
            return
        # One chunk a column: a thousand small writes cost no more than a large one.
        group = pa.concat_tables(self._waiting).combine_chunks()
        self._take_in(group)
        with disk_errors(self._folder):
            self._writer().write_table(group, row_group_size=group.num_rows)
        self._rows += self._waiting_rows
        self._bytes += self._waiting_bytes
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        if self._rows >= PART_ROWS or self._bytes >= PART_BYTES:
            self._end_file()

    def _take_in(self, group: pa.Table) -> None:
        """See the rows of a row group before it is written."""

    def _writer(self) -> pq.ParquetWriter:
        if self._open is None:
            path = self._folder / f"{self._name}-{len(self.paths):04d}.parquet"
            with disk_errors(path):
                self._open = pq.ParquetWriter(path, self.schema, compression="zstd")
            self.paths.append(path)
        return self._open

    def _end_file(self) -> None:
        if self._open is not None:
            writer, self._open = self._open, None
            with disk_errors(self._folder):
                writer.close()
        self._rows = self._bytes = 0


class _Parts(_Files):
    """The files of the table itself: digested as they are written, ids watched."""

    def __init__(self, folder: Path, columns: tuple[Column, ...]) -> None:
        super().__init__(folder, columns, name="part")
        self._content = ContentDigest(columns)
        self._ids: list[Lane] = []

    def _take_in(self, group: pa.Table) -> None:
        self._content.update(group)
        if ID in group.schema.names:
            self._watch_ids(group.column(ID))

    def table(self) -> Table:
        """End the files and describe them."""
        paths = self.close()
        repeated = _repeated(self._ids)
        if repeated.size:
            self._refuse_repeated(repeated)
        with disk_errors(self._folder):
            files = tuple(DataFile(path.name, path.stat().st_size, digest_file(path)) for path in paths)
        return Table(Digest(self._content.value()), self._content.columns, self._content.rows, files)

    def _watch_ids(self, ids: pa.ChunkedArray) -> None:
        if ids.null_count:
            raise StoreError(f"a row has no `{ID}`")
        self._ids.extend(value_lanes(chunk)[0] for chunk in ids.chunks)

    def _refuse_repeated(self, lanes: Lane) -> None:
        """Name an id that two rows share; two ids that share 64 bits of hash are innocent."""
        seen: set[str] = set()
        for ids in self._all_ids():
            for chunk in ids.chunks:
                suspects = chunk.filter(pa.array(np.isin(value_lanes(chunk)[0], lanes)))
                for row_id in suspects.to_pylist():
                    if row_id in seen:
                        raise StoreError(f"two rows have the same `{ID}` {row_id}")
                    seen.add(row_id)

    def _all_ids(self) -> Iterator[pa.ChunkedArray]:
        for path in self.paths:
            with disk_errors(path), pq.ParquetFile(path) as parquet:
                for group in range(parquet.num_row_groups):
                    yield parquet.read_row_group(group, columns=[ID]).column(ID)


def _repeated(lanes: list[Lane]) -> Lane:
    """The values that occur more than once."""
    if not lanes:
        return np.empty(0, np.uint64)
    ordered = np.sort(np.concatenate(lanes))
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
