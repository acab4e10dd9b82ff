"""The `sql` kind: one SELECT over the tables of its inputs, run by an in-memory DuckDB that can reach nothing else.

analyse ─ compile (ids, order) ─ describe both forms ─ same columns? ─ run, number duplicates, write
                                                          └ no: run it as written, ids from content
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa

from bqbuild.config.specs import SqlSpec
from bqbuild.core.errors import BuildError, StoreError, Where, did_you_mean
from bqbuild.core.events import Counts, NodeProgress, Warned
from bqbuild.core.records import ID, LINEAGE_COLUMNS, ROOTS, Column, Node, Table
from bqbuild.graph.sql import CompiledSql, analyse_sql, body_place, place_in
from bqbuild.graph.sql.ids import PLAIN_SCHEMA, ROW_ID, ROW_ROOTS, ROW_SCHEMA
from bqbuild.nodes.base import BuildContext, Built
from bqbuild.nodes.query import SAME_EVERYWHERE
from bqbuild.store.types import arrow_type, schema_of

BATCH_ROWS = 16384
_PLACE = re.compile(r"^(LINE (\d+): )(.*)\n( *)\^", re.MULTILINE)

STORED_AS = {
    "hugeint": "bigint",
    "uhugeint": "bigint",
    "uuid": "varchar",
    "bit": "varchar",
    "bignum": "varchar",
    "varint": "varchar",
    "interval": "varchar",
    "time with time zone": "varchar",
    "timestamp_s": "timestamp",
    "timestamp_ms": "timestamp",
}
"""How types of results are stored that tables don't have. sum() of integers is a HUGEINT: as a bigint it stays an
integer for whoever reads on, and a sum that does not fit is an error, never rounded."""


class SqlKind:
    """Builds SQL models."""

    semantics = 1

    def build(self, node: Node, inputs: Mapping[str, Table], ctx: BuildContext) -> Built:
        """Build the table. Raises BuildError for what DuckDB refuses, with the line in the model's file."""
        spec: SqlSpec = node.spec
        where = body_place(node)
        model = analyse_sql(node.body, where, volatile=spec.volatile, refs=inputs)
        schemas = {name: table.columns for name, table in inputs.items()}
        with _connection(ctx, inputs, model.mentioned) as connection:
            compiled = model.compile(schemas)
            query = _Query(connection, where)
            written = query.describe(compiled.written)
            _check_columns(written, where)
            if _same(written, query.try_describe(compiled.sql), compiled):
                sql = _finished(compiled, written)
            else:
                sql = _finished(replace(compiled, sql=compiled.written, has_lineage=False), written)
                ctx.emit(Warned(_NO_LINEAGE, node.name))
            return Built(_write(query.stream(sql), _stored(written), node, ctx))


_NO_LINEAGE = "rows can't be followed through this SQL: their ids come from their content, and their seeds are unknown"


@dataclass(frozen=True, slots=True)
class _Query:
    """A connection, and the file to blame for what it refuses."""

    connection: duckdb.DuckDBPyConnection
    where: Where

    def describe(self, sql: str) -> list[Column]:
        """The columns of the user's own query, bound but not run."""
        try:
            return self._describe(sql)
        except duckdb.Error as error:
            raise self._located(sql, error) from error

    def try_describe(self, sql: str) -> list[Column] | None:
        """The same, or None where DuckDB can't bind it."""
        try:
            return self._describe(sql)
        except duckdb.Error:
            return None

    def stream(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Run a query and give its rows in batches."""
        try:
            yield from self.connection.sql(sql).to_arrow_reader(BATCH_ROWS)
        except duckdb.Error as error:
            # the line that DuckDB gives is one of the compiled query
            raise _as_build_error(error, self.where) from error

    def _describe(self, sql: str) -> list[Column]:
        # `sql` binds and does not run; it gives names that are used twice as they are, which DESCRIBE does not.
        relation = self.connection.sql(sql)
        return [Column(name, str(kind).lower()) for name, kind in zip(relation.columns, relation.types, strict=True)]

    def _located(self, sql: str, error: duckdb.Error) -> BuildError:
        """The error with line and column, which DuckDB gives when asked to explain."""
        try:
            self.connection.execute(f"EXPLAIN\n{sql}")
        except duckdb.Error as explained:
            match = _PLACE.search(str(explained))
            if match:
                column = 0 if match[3].startswith("...") else len(match[4]) - len(match[1])
                return _as_build_error(error, place_in(self.where, int(match[2]) - 1, column + 1))
        return _as_build_error(error, self.where)


@contextmanager
def _connection(
    ctx: BuildContext, inputs: Mapping[str, Table], mentioned: Iterable[str]
) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with every input as three views (as the user sees it, with lineage, without); nothing else in reach."""
    ctx.scratch.mkdir(parents=True, exist_ok=True)
    with open_duckdb(ctx.scratch / "duckdb") as connection:
        connection.execute(f"CREATE SCHEMA {ROW_SCHEMA}; CREATE SCHEMA {PLAIN_SCHEMA}")
        folders: set[str] = set()
        for name, table in inputs.items():
            files = ctx.store.tables.files(table)
            folders |= {str(file.parent) for file in files}
            _create_views(connection, name, table, files, frozenset(mentioned))
        lock_duckdb(connection, sorted(folders))
        yield connection


@contextmanager
def open_duckdb(spill: Path, *, memory: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB that spills to the folder `spill` and says UTC for every clock and zone."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "temp_directory": str(spill),
        "threads": os.cpu_count() or 1,
    }
    if memory is not None:
        config["memory_limit"] = memory
    with duckdb.connect(":memory:", config=config) as connection:
        connection.execute(f"{SAME_EVERYWHERE}; SET enable_progress_bar = false")
        connection.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
        connection.execute("SET preserve_insertion_order = false; SET python_enable_replacements = false")
        yield connection


def lock_duckdb(connection: duckdb.DuckDBPyConnection, folders: Sequence[str]) -> None:
    """Leave the connection nothing to read but what is below `folders`, for good."""
    if folders:
        connection.execute(f"SET allowed_directories = [{', '.join(_text(folder) for folder in folders)}]")
    connection.execute("SET enable_external_access = false; SET lock_configuration = true")


def _create_views(
    connection: duckdb.DuckDBPyConnection, name: str, table: Table, files: Sequence[Path], mentioned: frozenset[str]
) -> None:
    scan = f"read_parquet([{', '.join(_text(str(file)) for file in files)}])"
    user = [_read_as(column) for column in table.columns if column.name not in LINEAGE_COLUMNS]
    own = {column.name for column in table.columns if column.name in LINEAGE_COLUMNS}
    shown = [quoted(column) for column in LINEAGE_COLUMNS if column in own & mentioned and column != ROOTS]
    identity = quoted(ID) if ID in own else "CAST(NULL AS VARCHAR)"
    roots = quoted(ROOTS) if ROOTS in own else "CAST([] AS VARCHAR[])"
    lineage = [f"{identity} AS {quoted(ROW_ID)}", f"{roots} AS {quoted(ROW_ROOTS)}"]
    forms = {"main": user + shown, ROW_SCHEMA: user + shown + lineage, PLAIN_SCHEMA: user}
    for schema, columns in forms.items():
        given = ", ".join(columns) or "NULL AS no_columns"
        connection.execute(f"CREATE VIEW {schema}.{quoted(name)} AS SELECT {given} FROM {scan}")


def _read_as(column: Column) -> str:
    name = quoted(column.name)
    return f"CAST({name} AS JSON) AS {name}" if column.type == "json" else name


def _check_columns(columns: Sequence[Column], where: Where) -> None:
    seen: dict[str, str] = {}
    for column in columns:
        other = seen.setdefault(column.name.lower(), column.name)
        if other is not column.name:
            raise BuildError(
                f"two columns are called `{column.name}`", where=where, hint="give one of them another name with AS"
            )
        if column.name.lower().startswith("_bq_"):
            raise BuildError(
                f"`{column.name}` is bqbuild's own, and rows carry their id anyway",
                where=where,
                hint=f"leave it out, or give it another name: {column.name} AS source_id",
            )
        _stored_type(column, where)


def _same(written: Sequence[Column], compiled: Sequence[Column] | None, form: CompiledSql) -> bool:
    """Whether the compiled query gives the columns that the user's gives. Names may differ: they are set again, and
    those of expressions come from their text."""
    if compiled is None:
        return False
    own = 2 if form.has_lineage else 0
    return [column.type for column in compiled[: len(compiled) - own]] == [column.type for column in written]


def _stored_type(column: Column, where: Where | None = None) -> str:
    """The type in which a column of a result is stored."""
    kind = column.type
    if kind.startswith("enum("):
        return "varchar"
    if kind in ('"null"', "null"):
        return "integer"
    kind = STORED_AS.get(kind, kind)
    try:
        arrow_type(kind)
    except StoreError:
        message = f"column `{column.name}` has the type {column.type}, which no table can hold"
        raise BuildError(message, where=where, hint="cast it, to varchar or json for instance") from None
    return kind


def _stored(columns: Sequence[Column]) -> list[Column]:
    stored = [Column(column.name, _stored_type(column)) for column in columns]
    return [*stored, Column(ID, "varchar"), Column(ROOTS, "varchar[]")]


def _finished(compiled: CompiledSql, columns: Sequence[Column]) -> str:
    """The query whose rows are stored: names and types as they are to be, one id a row."""
    names = [quoted(column.name) for column in columns]
    values = ", ".join(
        f"CAST({name} AS {_stored_type(column)}) AS {name}" if _stored_type(column) != column.type else name
        for name, column in zip(names, columns, strict=True)
    )
    inner = ", ".join([*names, *([quoted(ROW_ID), quoted(ROW_ROOTS)] if compiled.has_lineage else [])])
    rows = f"(\n{compiled.sql}\n) AS __bq_rows({inner})"
    if compiled.has_lineage and compiled.unique:
        return f"SELECT {values}, {quoted(ROW_ID)} AS {ID}, {quoted(ROW_ROOTS)} AS {ROOTS} FROM {rows}"
    fields = ", ".join(f"{_text(column.name)}: {name}" for name, column in zip(names, columns, strict=True))
    content = f"MD5(CAST(TO_JSON({{{fields}}}) AS VARCHAR))"
    identity = f"COALESCE({quoted(ROW_ID)}, {content})" if compiled.has_lineage else content
    roots = quoted(ROW_ROOTS) if compiled.has_lineage else "CAST([] AS VARCHAR[])"
    return f"""
        WITH __bq_named AS (SELECT {", ".join(names)}, {identity} AS __bq_id, {content} AS __bq_content,
                                   COALESCE({roots}, []) AS __bq_roots FROM {rows}),
             __bq_counted AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY __bq_id
                                                           ORDER BY __bq_content, __bq_roots) - 1 AS __bq_copy
                              FROM __bq_named)
        SELECT {values},
               CASE WHEN __bq_copy = 0 THEN __bq_id ELSE MD5(__bq_id || ':' || __bq_copy) END AS {ID},
               __bq_roots AS {ROOTS}
        FROM __bq_counted"""


def _write(batches: Iterator[pa.RecordBatch], columns: Sequence[Column], node: Node, ctx: BuildContext) -> Table:
    schema = schema_of(columns)
    writer = ctx.store.tables.writer(schema)
    rows = 0
    try:
        for batch in batches:
            writer.write(batch)
            rows += batch.num_rows
            ctx.emit(NodeProgress(node.name, Counts(rows=rows), done=rows))
        return writer.commit()
    except BaseException:
        writer.abort()
        raise


def _as_build_error(error: duckdb.Error, where: Where) -> BuildError:
    """DuckDB's message, in one line, with the nearest of the columns that it would have known."""
    text = str(error).strip()
    message = text.splitlines()[0] if text else type(error).__name__
    candidates = re.search(r"Candidate bindings: (.*)", text)
    missing = re.search(r'column "([^"]+)" not found', text)
    hint = None
    if candidates and missing:
        hint = did_you_mean(missing[1], re.findall(r'"([^"]+)"', candidates[1]))
    return BuildError(f"DuckDB: {message}", where=where, hint=hint)


def quoted(name: str) -> str:
    """A name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    """A text as a SQL literal."""
    return "'" + value.replace("'", "''") + "'"
