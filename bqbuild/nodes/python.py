"""The `python` kind: a function of the user's over Arrow data.

`mode: batch` calls it with record batches of one input, `mode: table` once with a whole table an input, its rows in the
order of `_bq_id`. What it gets has the user's columns and `_bq_id`; where it gives `_bq_id` back, rows keep their ids,
and with them their seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bqbuild.config.project import Project
from bqbuild.config.specs import PythonSpec
from bqbuild.core.errors import BuildError, ProjectError, StoreError, Where, did_you_mean
from bqbuild.core.events import Counts, NodeProgress
from bqbuild.core.hashing import digest
from bqbuild.core.ids import row_id
from bqbuild.core.records import ID, LINEAGE_COLUMNS, ROOTS, Node, Table
from bqbuild.graph.python_code import code_identity, function_place
from bqbuild.nodes.base import BuildContext, Built
from bqbuild.nodes.plain import plain
from bqbuild.nodes.python_modules import ProjectModules, UserCode, read_code
from bqbuild.store.types import JSON_FIELD, arrow_type, schema_of, stored_schema, yaml_type

LINEAGE = pa.schema([pa.field(ID, pa.string()), pa.field(ROOTS, pa.list_(pa.string()))])

Function = Callable[..., Any]
Roots = Mapping[str, list[str]]


class PythonKind:
    """Builds Python models."""

    semantics = 1

    def build(self, node: Node, inputs: Mapping[str, Table], ctx: BuildContext) -> Built:
        """Build the table. Raises BuildError, with file and line of the user's code, for what that raises."""
        spec: PythonSpec = node.spec
        models = ctx.project.root / "models"
        path, name = _place(node)
        files = read_code(models)
        code_identity(files, path, name, _where(node))  # says what is missing, better than an import does
        with ProjectModules(models, files) as modules:
            with UserCode(models, f"importing models/{path}"):
                function = getattr(modules.load(path), name)
            call = _Call(function, spec.args, UserCode(models, f"`{name}`"), Where(f"models/{path}"))
            tables = [inputs[given] for given in spec.from_]
            if spec.mode == "batch":
                return Built(_build_batches(node, call, tables, ctx))
            return Built(_build_table(node, call, tables, ctx))


def code_of(project: Project, node: Node) -> dict[str, Any]:
    """The identity of a Python model's code, for its recipe. Raises ProjectError and BuildError."""
    path, name = _place(node)
    return code_identity(read_code(project.root / "models"), path, name, _where(node))


class _Call:
    """The user's function, its arguments, and who is to blame for what it gives."""

    def __init__(self, function: Function, args: Mapping[str, Any], guard: UserCode, where: Where) -> None:
        self._function = function
        self._args = args
        self._guard = guard
        self.where = where

    def __call__(self, *data: pa.RecordBatch | pa.Table) -> pa.Table:
        """What the function makes of `data`, as a table."""
        with self._guard:
            result = self._function(*data, **self._args)
        if isinstance(result, pa.RecordBatch):
            return pa.Table.from_batches([result])
        if isinstance(result, pa.Table):
            return result
        kind = type(result)
        raise self.error(f"it gave a {kind.__module__}.{kind.__qualname__}, not an Arrow batch or table")

    def error(self, message: str, hint: str | None = None) -> BuildError:
        return BuildError(message, where=self.where, hint=hint)


def _build_batches(node: Node, call: _Call, tables: Sequence[Table], ctx: BuildContext) -> Table:
    if len(tables) != 1:
        raise BuildError(
            f"`mode: batch` reads one input, not {len(tables)}", where=_where(node), hint="use `mode: table`"
        )
    with _Spool(ctx.scratch / "python.arrow") as spool:
        done = 0
        for batch, roots in _input_batches(node, tables[0], ctx):
            result = call(batch)
            spool.add(_named(result, batch, roots, call))
            done += batch.num_rows
            ctx.emit(NodeProgress(node.name, Counts(rows=spool.rows), done=done, total=tables[0].rows))
        return _store(node, spool.schema, spool.read(), call, ctx)


def _build_table(node: Node, call: _Call, tables: Sequence[Table], ctx: BuildContext) -> Table:
    given, roots = [], dict[str, list[str]]()
    for table in tables:
        parts = list(_input_batches(node, table, ctx))
        # in an order of its own: rows lie in that of whoever wrote the table first, which no table may depend on
        given.append(pa.Table.from_batches([batch for batch, _ in parts]).sort_by(ID))
        for _, known in parts:
            roots.update(known)
    result = call(*given)
    named = _with_ids(result, roots, call) if ID in result.column_names else _by_content(result)
    return _store(node, named.schema, iter([named]), call, ctx)


def _input_batches(node: Node, table: Table, ctx: BuildContext) -> Iterator[tuple[pa.RecordBatch, Roots]]:
    """What the function sees of an input, at least one batch; and the roots of each row by its id."""
    columns = _columns(node, table)
    schema = schema_of(column for column in table.columns if column.name in (*columns, ID))
    seen = False
    for batch in ctx.store.tables.batches(table, [*schema.names, ROOTS]):
        roots = dict(zip(batch.column(ID).to_pylist(), batch.column(ROOTS).to_pylist(), strict=True))
        seen = True
        yield batch.select(schema.names), roots
    if not seen:
        yield pa.RecordBatch.from_pylist([], schema=schema), {}


def _columns(node: Node, table: Table) -> list[str]:
    """The user's columns that the function gets: those that `reads` names, else all."""
    spec: PythonSpec = node.spec
    if spec.reads is None:
        return list(table.user_columns)
    for name in spec.reads:
        if name not in table.user_columns and len(spec.from_) == 1:
            raise BuildError(
                f"`reads` names `{name}`, which the input does not have",
                where=node.places.get("reads", node.where),
                hint=did_you_mean(name, table.user_columns),
            )
    return [name for name in table.user_columns if name in spec.reads]


def _named(result: pa.Table, batch: pa.RecordBatch, roots: Roots, call: _Call) -> pa.Table:
    """The rows made of a batch, with their ids and roots."""
    if ID in result.column_names:
        return _with_ids(result, roots, call)
    if result.num_rows != batch.num_rows:
        raise call.error(
            f"it made {result.num_rows} rows of {batch.num_rows}, and does not say which is which",
            hint=f"keep the column `{ID}`, so that each row says which one it was made from, or use `mode: table`",
        )
    return _with_ids(result.append_column(ID, batch.column(ID)), roots, call)


def _with_ids(result: pa.Table, roots: Roots, call: _Call) -> pa.Table:
    """Rows that say which row they were made from; the second and later ones of a row get ids of their own."""
    copies: Counter[str] = Counter()
    ids, above = [], []
    for identity in result.column(ID).to_pylist():
        if identity not in roots:
            raise call.error(f"it gave a row the id {identity!r}, which no row of its input has")
        ids.append(row_id("python", identity, copies[identity]) if copies[identity] else identity)
        above.append(roots[identity])
        copies[identity] += 1
    return _with_lineage(result, ids, above)


def _by_content(result: pa.Table) -> pa.Table:
    """Rows that say nothing of where they come from: named by what they hold, equal ones numbered."""
    copies: Counter[str] = Counter()
    ids = []
    for row in result.to_pylist():
        content = digest({name: plain(value) for name, value in row.items()})
        ids.append(row_id("python", content, copies[content]))
        copies[content] += 1
    return _with_lineage(result, ids, [[] for _ in ids])


def _with_lineage(result: pa.Table, ids: list[str], roots: list[list[str]]) -> pa.Table:
    kept = [name for name in result.column_names if name not in LINEAGE_COLUMNS]
    user = result.select(kept)
    return user.append_column(LINEAGE.field(0), pa.array(ids, pa.string())).append_column(
        LINEAGE.field(1), pa.array(roots, pa.list_(pa.string()))
    )


def _store(node: Node, schema: pa.Schema, parts: Iterator[pa.Table], call: _Call, ctx: BuildContext) -> Table:
    try:
        final = _declared(node, stored_schema(schema), call)
        writer = ctx.store.tables.writer(final)
        try:
            for part in parts:
                writer.write(_cast(part, final))
            return writer.commit()
        except BaseException:
            writer.abort()
            raise
    except (pa.ArrowException, StoreError) as error:
        message = error.message if isinstance(error, StoreError) else str(error).splitlines()[0]
        raise call.error(f"what it gave cannot be stored: {message}") from error


def _declared(node: Node, schema: pa.Schema, call: _Call) -> pa.Schema:
    """The schema with the types that the model declares."""
    for column in node.spec.columns:
        if column.type is None:
            continue
        position = schema.get_field_index(column.name)
        if position < 0:
            hint = did_you_mean(column.name, schema.names)
            raise call.error(f"it gave no column `{column.name}`, which the model declares", hint)
        kind = yaml_type(column.type)
        field = pa.field(column.name, arrow_type(kind), metadata=JSON_FIELD if kind == "json" else None)
        schema = schema.set(position, field)
    return schema


def _cast(part: pa.Table, schema: pa.Schema) -> pa.Table:
    """A part in the order and types of the whole; what a part lacks is NULL."""
    columns = []
    for field in schema:
        if field.name in part.column_names:
            columns.append(part.column(field.name).cast(field.type))
        else:
            columns.append(pa.nulls(part.num_rows, field.type))
    return pa.table(columns, schema=schema)


class _Spool:
    """Results on disk until the last one has shown what types the columns have: a first batch may be all NULL."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schemas: list[pa.Schema] = []
        self._files: list[Path] = []
        self.rows = 0

    def __enter__(self) -> _Spool:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        for file in self._files:
            file.unlink(missing_ok=True)

    def add(self, table: pa.Table) -> None:
        if table.schema not in self._schemas:
            self._schemas.append(table.schema)
        file = self._path.with_suffix(f".{len(self._files)}")
        self._files.append(file)
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        self.rows += table.num_rows

    @property
    def schema(self) -> pa.Schema:
        """One schema for all results: NULL gives way, numbers widen. Raises pa.ArrowException where none fits."""
        return pa.unify_schemas(self._schemas, promote_options="permissive")

    def read(self) -> Iterator[pa.Table]:
        for file in self._files:
            with pa.OSFile(str(file), "rb") as source, pa.ipc.open_file(source) as reader:
                yield reader.read_all()


def _place(node: Node) -> tuple[str, str]:
    try:
        return function_place(node.spec.function)
    except ValueError as error:
        raise ProjectError(str(error), where=_where(node), hint="for example `function: scoring.py:score`") from error


def _where(node: Node) -> Where:
    return node.places.get("function", node.where)
