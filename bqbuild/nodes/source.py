"""The `source` kind: files become a typed table whose rows have stable ids."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from bqbuild.config.layout import LOCK
from bqbuild.config.lock import read_lock
from bqbuild.config.project import Project
from bqbuild.config.specs import SourceSpec
from bqbuild.core.errors import BuildError, StoreError, Where, did_you_mean
from bqbuild.core.events import Counts, NodeProgress
from bqbuild.core.hashing import SCHEME, canonical_json, digest_bytes
from bqbuild.core.ids import row_id
from bqbuild.core.records import ID, ROOTS, Column, Node, Table
from bqbuild.nodes.base import BuildContext, Built
from bqbuild.nodes.plain import plain
from bqbuild.nodes.readers import READERS, TEXTUAL
from bqbuild.nodes.readers.base import Batch
from bqbuild.nodes.readers.parquet_reader import parquet_columns
from bqbuild.nodes.sampled import sample_ids, sample_size
from bqbuild.nodes.source_files import (
    SourceFile,
    check_sha256,
    fetch,
    source_files,
    source_format,
)
from bqbuild.nodes.source_types import Typed, TypeGuess, check_names
from bqbuild.store.types import schema_of, yaml_type

LINEAGE = (Column(ID, "varchar"), Column(ROOTS, "varchar[]"))


class SourceKind:
    """Reads the files of a source: types from its declaration and from `sources.lock`, which new columns extend."""

    semantics = 1

    def build(self, node: Node, inputs: Mapping[str, Table], ctx: BuildContext) -> Built:
        """Build the table. Raises BuildError for files that are missing, broken, or do not fit their types."""
        spec: SourceSpec = node.spec
        files = source_files(spec, ctx.project.root, node.where)
        fetch(spec, files, node.where)
        check_sha256(spec, files, ctx.project.artifacts / "stat_cache.json", node.where)
        locked = locked_columns(ctx.project, node)
        columns = _with_declared(spec, locked, node.where)
        if not locked:
            columns = infer_columns(spec, files, node.where)
        try:
            table = _write(node, files, columns, ctx)
        except _NewColumnsError:
            columns = _merge(columns, infer_columns(spec, files, node.where))
            check_names(files[0], (column.name for column in columns))
            table = _write(node, files, columns, ctx)
        if list(locked) != columns:
            with ctx.store.leases.hold(f"sources.lock of {ctx.project.root}"):
                remember_columns(ctx.project, node, columns)
        return Built(table)


def infer_columns(spec: SourceSpec, files: Sequence[SourceFile], where: Where | None = None) -> list[Column]:
    """The columns of a source: those of the data, in the order in which they come, with declared types where given.

    Reads every row. Raises BuildError for broken files, and where there is no column at all.
    """
    kind = source_format(spec, where)
    if kind == "parquet":
        guessed = _unified(files)
    else:
        guess = TypeGuess(textual=kind in TEXTUAL)
        for file in files:
            for batch in READERS[kind](file, spec):
                guess.see(batch)
        guessed = guess.columns()
    columns = _with_declared(spec, guessed, where)
    check_names(files[0], (column.name for column in columns))
    if not columns:
        raise BuildError(
            f"source `{spec.name}` has no rows to infer columns from",
            where=where,
            hint="declare its `columns:` with types",
        )
    return columns


def source_origins(node: Node, project: Project) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """Where every row of a source comes from: its id, the file as shown, the line, and the row's values."""
    files = source_files(node.spec, project.root, node.where)
    columns = _with_declared(node.spec, locked_columns(project, node), node.where)
    for batch in _typed_batches(node, files, columns or infer_columns(node.spec, files, node.where)):
        names = list(batch.values)
        rows = zip(*batch.values.values(), strict=True) if names else iter(() for _ in batch.ids)
        for identity, line, values in zip(batch.ids, batch.lines, rows, strict=True):
            yield (
                identity,
                batch.file.shown_as,
                line,
                dict(zip(names, values, strict=True)),
            )


def locked_columns(project: Project, node: Node) -> tuple[Column, ...]:
    """The columns that `sources.lock` has for a source; none where it has not been read yet."""
    return tuple(project.lock.columns(node.name) or ())


def remember_columns(project: Project, node: Node, columns: Sequence[Column]) -> None:
    """Write the columns of a source to `sources.lock`, beside what other sources have written since it was read."""
    path = project.root / LOCK
    read_lock(path).with_source(node.name, columns).write(path)


class _NewColumnsError(Exception):
    """The data has columns that the types don't know; caught in `build`."""


@dataclass(frozen=True, slots=True)
class _TypedBatch:
    file: SourceFile
    lines: list[int]
    ids: list[str]
    values: dict[str, list[Any]]


def _write(
    node: Node,
    files: Sequence[SourceFile],
    columns: Sequence[Column],
    ctx: BuildContext,
) -> Table:
    schema = schema_of([*columns, *LINEAGE])
    size = sample_size(node.spec, ctx.project)
    chosen = None
    if size is not None:
        batches = _typed_batches(node, files, columns)
        chosen = sample_ids((identity for batch in batches for identity in batch.ids), size)
    writer = ctx.store.tables.writer(schema)
    rows = 0
    seen = _SeenKeys()
    try:
        for batch in _typed_batches(node, files, columns):
            taken = _arrow(batch, schema)
            if chosen is not None:
                taken = taken.filter(pa.array([identity in chosen for identity in batch.ids], pa.bool_()))
            writer.write(taken)
            seen.add(batch.ids)
            rows += taken.num_rows
            ctx.emit(NodeProgress(node.name, Counts(rows=rows), done=rows))
        if node.spec.key and (suspects := seen.suspects()):
            _check_unique(node, suspects, _typed_batches(node, files, columns))
        return writer.commit()
    except BaseException:
        writer.abort()
        raise


def _arrow(batch: _TypedBatch, schema: pa.Schema) -> pa.RecordBatch:
    lineage = {ID: batch.ids, ROOTS: [[identity] for identity in batch.ids]}
    values = batch.values | lineage
    return pa.record_batch([pa.array(values[field.name], field.type) for field in schema], schema=schema)


def _typed_batches(node: Node, files: Sequence[SourceFile], columns: Sequence[Column]) -> Iterator[_TypedBatch]:
    """Every row of every file, typed and named. Raises _NewColumnsError for columns that are not among `columns`."""
    spec: SourceSpec = node.spec
    kind = source_format(spec, node.where)
    typed = Typed(columns, textual=kind in TEXTUAL)
    _check_key(node, columns)
    name_rows = _by_key(node) if spec.key else _by_content(node)
    for file in files:
        for batch in READERS[kind](file, spec):
            if typed.unknown(batch):
                raise _NewColumnsError
            values = typed.values(file, batch)
            lines = [line for line, _ in batch]
            yield _TypedBatch(file, lines, name_rows(file, batch, values), values)


_CONTENT = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME

_NameRows = Callable[[SourceFile, Batch, Mapping[str, list[Any]]], list[str]]


def _by_key(node: Node) -> _NameRows:
    """Ids from the declared key."""
    key: list[str] = node.spec.key
    name_row = key_ids(node.name)

    def name_rows(file: SourceFile, batch: Batch, values: Mapping[str, list[Any]]) -> list[str]:
        ids = []
        for (line, _), parts in zip(batch, zip(*(values[name] for name in key), strict=True), strict=True):
            if None in parts:
                missing = key[parts.index(None)]
                raise BuildError(f"the key column `{missing}` is NULL", where=Where(file.shown_as, line))
            ids.append(name_row(parts))
        return ids

    return name_rows


def key_ids(source: str) -> Callable[[Sequence[Any]], str]:
    """The id that a key makes: `row_id("source", source, key)`, but fast where the key is text and integers."""
    head = canonical_json([SCHEME, ["source", source]]).encode()[:-2] + b","

    def identify(key: Sequence[Any]) -> str:
        if {*map(type, key)} <= {str, int}:
            with suppress(TypeError):  # an integer of more than 64 bits
                return digest_bytes(head + orjson.dumps(list(key)) + b"]]")
        return row_id("source", source, [plain(part) for part in key])

    return identify


def _by_content(node: Node) -> _NameRows:
    """Ids from the content, and the number of equal rows before. A column that is NULL does not count, so that rows
    keep their ids when a column is added to others."""
    # By half of the digest, to save memory: should two halves ever agree, a number is skipped and ids stay unique.
    occurrences: Counter[int] = Counter()

    def name_rows(file: SourceFile, batch: Batch, values: Mapping[str, list[Any]]) -> list[str]:
        ids = []
        names = list(values)
        for parts in zip(*map(_told_apart, values.values()), strict=True):
            given = {name: part for name, part in zip(names, parts, strict=True) if part is not None}
            content = digest_bytes(orjson.dumps(given, default=plain, option=_CONTENT))
            half = int(content[:16], 16)
            ids.append(row_id("source", node.name, content, occurrences[half]))
            occurrences[half] += 1
        return ids

    return name_rows


def _told_apart(values: list[Any]) -> list[Any]:
    """The values of a column for JSON, which would write NaN and the infinities as NULL, all three."""
    if float not in set(map(type, values)):
        return values
    return [
        {"$float": str(value)} if isinstance(value, float) and not math.isfinite(value) else value for value in values
    ]


class _SeenKeys:
    """Finds keys that come twice, in eight bytes a row: halves of ids first, whole ids only where those agree."""

    def __init__(self) -> None:
        self._halves = array("Q")

    def add(self, ids: Sequence[str]) -> None:
        self._halves.extend(int(identity[:16], 16) for identity in ids)

    def suspects(self) -> set[int]:
        halves = np.sort(np.frombuffer(self._halves, dtype=np.uint64)) if self._halves else np.empty(0, np.uint64)
        return {int(half) for half in halves[1:][halves[1:] == halves[:-1]]}


def _check_unique(node: Node, suspects: set[int], batches: Iterator[_TypedBatch]) -> None:
    """Raises BuildError for the first key that comes twice, naming both places."""
    seen: dict[str, Where] = {}
    for batch in batches:
        for position, (identity, line) in enumerate(zip(batch.ids, batch.lines, strict=True)):
            if int(identity[:16], 16) not in suspects:
                continue
            place = Where(batch.file.shown_as, line)
            first = seen.setdefault(identity, place)
            if first is not place:
                shown = ", ".join(f"{name} = {batch.values[name][position]!r}" for name in node.spec.key)
                raise BuildError(
                    f"the key of source `{node.name}` comes twice: {shown} is also at {first}",
                    where=place,
                    hint="remove one of the rows, or name more columns in `key:`",
                )


def _check_key(node: Node, columns: Sequence[Column]) -> None:
    names = [column.name for column in columns]
    for part in node.spec.key:
        if part not in names:
            where = node.places.get("key", node.where)
            raise BuildError(
                f"source `{node.name}` has no column `{part}`",
                where=where,
                hint=did_you_mean(part, names),
            )


def _with_declared(spec: SourceSpec, columns: Sequence[Column], where: Where | None) -> list[Column]:
    """`columns` with the declared types; declared columns that are not among them come last."""
    types: dict[str, str] = {column.name: column.type for column in columns}
    for declared in spec.columns:
        if declared.type is not None:
            try:
                types[declared.name] = yaml_type(declared.type)
            except StoreError as error:
                message = f"column `{declared.name}` of source `{spec.name}`: {error.message}"
                raise BuildError(message, where=where, hint=error.hint) from error
    return [Column(name, type_name) for name, type_name in types.items()]


def _merge(known: Sequence[Column], found: Sequence[Column]) -> list[Column]:
    names = {column.name for column in known}
    return [*known, *(column for column in found if column.name not in names)]


def _unified(files: Sequence[SourceFile]) -> list[Column]:
    """The columns of several Parquet files; where their types differ, the wider of two numbers, else varchar."""
    types: dict[str, str] = {}
    numbers = ("tinyint", "smallint", "integer", "bigint", "double")
    for file in files:
        for column in parquet_columns(file):
            other = types.setdefault(column.name, column.type)
            if other == column.type:
                continue
            both = {other, column.type}
            types[column.name] = max(both, key=numbers.index) if both <= set(numbers) else "varchar"
    return [Column(name, type_name) for name, type_name in types.items()]
