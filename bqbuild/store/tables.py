"""Tables in a folder: Parquet files under the digest of their content, with a manifest `table.json`.

The same content has the same digest whoever writes it and in whatever order, so two runs that commit the same table
share it. Digests of column subsets are remembered in the table's folder, below `content/`. Arrow is loaded where rows
are read or written: to see that a table is there takes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bqbuild.core.errors import StoreError, did_you_mean
from bqbuild.core.hashing import Digest, digest
from bqbuild.core.records import Column, Table
from bqbuild.store.base import CONTENT_SCHEME
from bqbuild.store.content import ContentFolders, data_files, described
from bqbuild.store.disk import checked_json, disk_errors, read_checked, write_atomic

if TYPE_CHECKING:
    import pyarrow as pa

    from bqbuild.store.parts import PartsWriter

BATCH_ROWS = 8192


class LocalTables:
    """The tables of a folder store."""

    def __init__(self, folders: ContentFolders, scratch: Path) -> None:
        self._folders = folders
        self._scratch = scratch
        self._tables: dict[Digest, Table] = {}
        self._digests: dict[tuple[Digest, tuple[str, ...]], Digest] = {}

    def writer(self, schema: pa.Schema, *, ordered: bool = False) -> PartsWriter:
        """A writer for rows of `schema`; with `ordered` each batch also has the `ORDER` column.

        Raises StoreError for a schema that no table can have.
        """
        from bqbuild.store.parts import PartsWriter

        return PartsWriter(schema, scratch=self._scratch, publish=self._publish, ordered=ordered)

    def find(self, digest: Digest) -> Table | None:
        """The table, or None where it, or one of its files (name and size are looked at), is not there."""
        table = self._tables.get(digest)
        if table is not None and self._folders.is_whole(digest, table.files):
            return table
        # Not known, gone, or made anew by another run, which may have cut it into other files.
        manifest = self._folders.find(digest)
        table = None if manifest is None else _table(manifest)
        if table is None or not self._folders.is_whole(digest, table.files):
            self._tables.pop(digest, None)
            return None
        self._tables[digest] = table
        return table

    def files(self, table: Table) -> list[Path]:
        """The table's Parquet files as local paths, in order. Raises DamagedError."""
        table = self._as_stored(table)
        self._folders.verify(table.digest, table.files)
        return [self._folders.path(table.digest) / file.name for file in table.files]

    def batches(self, table: Table, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in order, in batches of bounded size, with `columns` in the order asked for (None: all).

        Raises DamagedError, and StoreError for a column that is not there.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        from bqbuild.store.types import conformed, schema_of

        wanted = _chosen(table, [column.name for column in table.columns] if columns is None else list(columns))
        schema = schema_of(wanted)
        for path in self.files(table):
            with disk_errors(path), pq.ParquetFile(path) as parquet:
                for group in range(parquet.num_row_groups):
                    # not the whole group: it may have 65,536 rows
                    for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=schema.names):
                        rows = pa.Table.from_batches([batch]).select(schema.names)
                        yield from conformed(rows, schema).to_batches()

    def content_digest(self, table: Table, columns: Sequence[str]) -> Digest:
        """Digest of the multiset of the tuples of `columns`: independent of the order of rows and of columns; without
        columns, of the number of rows. Remembered beside the table. Raises as `batches` does."""
        names = tuple(sorted(set(columns)))
        known = self._digests.get((table.digest, names))
        if known is None:
            known = self._digests[table.digest, names] = self._remembered(table, names)
        return known

    def _remembered(self, table: Table, names: tuple[str, ...]) -> Digest:
        wanted = _chosen(table, names)
        if not names:
            return _rows_digest(table.rows)
        asked = {"scheme": CONTENT_SCHEME, "table": table.digest, "columns": list(names)}
        path = self._folders.path(table.digest) / "content" / f"{digest(asked)}.json"
        try:
            note = read_checked(path)
        except ValueError:
            note = None  # only a memory: count again
        if note is not None and all(note.get(key) == value for key, value in asked.items()):
            return Digest(note["digest"])
        found = self._counted(table, wanted)
        write_atomic(path, checked_json({**asked, "digest": found}), self._scratch)
        return found

    def _counted(self, table: Table, columns: Sequence[Column]) -> Digest:
        import pyarrow as pa

        from bqbuild.store.digests import ContentDigest

        content = ContentDigest(columns)
        for batch in self.batches(table, [column.name for column in columns]):
            content.update(pa.Table.from_batches([batch]))
        return content.value()

    def _publish(self, staged: Path, table: Table) -> Table:
        manifest = {
            "digest": table.digest,
            "columns": [[column.name, column.type] for column in table.columns],
            "rows": table.rows,
            "files": described(table.files),
        }
        published = _table(self._folders.publish(staged, table.digest, manifest))
        self._tables[table.digest] = published
        return published

    def _as_stored(self, table: Table) -> Table:
        """The table as it lies here: another run may have put equal rows in other files meanwhile."""
        if self._folders.is_whole(table.digest, table.files):
            return table
        return self.find(table.digest) or table


def _table(manifest: Mapping[str, Any]) -> Table:
    columns = tuple(Column(name, kind) for name, kind in manifest["columns"])
    return Table(Digest(manifest["digest"]), columns, manifest["rows"], data_files(manifest))


def _chosen(table: Table, names: Sequence[str]) -> list[Column]:
    columns = {column.name: column for column in table.columns}
    for name in names:
        if name not in columns:
            raise StoreError(f"table {table.digest} has no column `{name}`", hint=did_you_mean(name, columns))
    return [columns[name] for name in names]


def _rows_digest(rows: int) -> Digest:
    from bqbuild.store.digests import ContentDigest

    content = ContentDigest(())
    content.rows = rows
    return content.value()
