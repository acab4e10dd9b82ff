"""What a node would read right now: the columns, and the digest of their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bqbuild.config.lock import read_lock
from bqbuild.config.project import LOCK, Project
from bqbuild.core.errors import BuildError, did_you_mean
from bqbuild.core.hashing import digest
from bqbuild.core.records import (
    CALLS,
    ID,
    LINEAGE_COLUMNS,
    PARENT,
    ROOTS,
    Node,
    ReadInput,
    Reads,
    Table,
)
from bqbuild.graph.reads import reads_of
from bqbuild.nodes.sampled import sample_size
from bqbuild.nodes.source_files import files_digest, source_files
from bqbuild.store.base import Tables

_HANDED_ON = {"filter": (PARENT, CALLS), "mix": (CALLS,)}
"""Lineage columns that a kind hands on as they are, next to ids and roots, which all kinds that carry ids do."""


def read_inputs(node: Node, project: Project, tables: Tables, parents: Mapping[str, Table]) -> dict[str, ReadInput]:
    """The inputs of a build key, by `str(ref)`; a source's are its `files` and its types in the `lock`."""
    if node.kind == "source":
        return _source_inputs(node, project)
    schemas = {name: table.columns for name, table in parents.items()}
    inputs = {}
    for name, reads in reads_of(node, project, schemas).items():
        table = parents[name]
        columns = _resolved(node, name, reads, table)
        there = {column.name for column in table.columns}
        own = {ID, ROOTS, *_HANDED_ON.get(node.kind, ())} if reads.ids else set()
        counted = [*columns, *(there & (own | _named(node)))]
        inputs[name] = ReadInput(columns, reads.ids, tables.content_digest(table, counted))
    return inputs


def _named(node: Node) -> set[str]:
    """The lineage columns that SQL of the node names, or may name."""
    text = f"{node.body} {getattr(node.spec, 'where', None) or ''}".lower()
    return {name for name in (PARENT, CALLS) if name in text}


def _source_inputs(node: Node, project: Project) -> dict[str, ReadInput]:
    """The lock is read as it is now: building a source may have written to it."""
    files = source_files(node.spec, project.root, node.where)
    content = files_digest(node.spec, files, project.artifacts / "stat_cache.json")
    locked = read_lock(project.root / LOCK).columns(node.name) or ()
    types = {column.name: column.type for column in locked}
    inputs = {"files": ReadInput((), False, content), "lock": ReadInput(tuple(sorted(types)), False, digest(types))}
    rows = sample_size(node.spec, project)
    return inputs if rows is None else inputs | {"sample": ReadInput((), False, digest(["sample", rows]))}


def _resolved(node: Node, parent: str, reads: Reads, table: Table) -> tuple[str, ...]:
    """The columns read, as the table spells them, sorted. DuckDB does not mind case, so neither does this."""
    if reads.columns is None:
        return tuple(sorted(table.user_columns))
    names = {column.name.lower(): column.name for column in table.columns}
    found = set()
    for column in reads.columns:
        if column in LINEAGE_COLUMNS:
            continue
        if column.lower() not in names:
            if node.kind in ("evaluate", "filter"):
                continue  # benchmarks differ in their columns; the kind says so where one lacks all that is needed
            raise BuildError(
                f"`{node.name}` reads `{column}`, which `{parent}` does not have",
                where=node.where,
                hint=did_you_mean(column, names.values()) or _listed(table.user_columns),
            )
        found.add(names[column.lower()])
    return tuple(sorted(found))


def _listed(columns: Sequence[str]) -> str:
    return f"it has {', '.join(columns)}"
