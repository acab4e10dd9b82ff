"""What a node reads of its parents' tables, with their names for the columns (rule C3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bqbuild.config.project import Project
from bqbuild.core.errors import BuildError, did_you_mean
from bqbuild.core.records import CALLS, ID, LINEAGE_COLUMNS, PARENT, ROOTS, Node, Reads, Table
from bqbuild.graph.reads import reads_of
from bqbuild.run.view import ReadPart

_HANDED_ON = {"filter": (PARENT, CALLS), "mix": (CALLS,)}
"""Lineage columns that a kind hands on as they are, next to ids and roots, which all kinds that carry ids do."""


def read_parts(node: Node, project: Project, parents: Mapping[str, Table]) -> dict[str, ReadPart]:
    """The parts of `parents`, which are given by `str(ref)`. Raises BuildError for a column that is not there."""
    schemas = {name: table.columns for name, table in parents.items()}
    parts = {}
    for name, reads in reads_of(node, project, schemas).items():
        table = parents[name]
        columns = _resolved(node, name, reads, table)
        there = {column.name for column in table.columns}
        own = {ID, ROOTS, *_HANDED_ON.get(node.kind, ())} if reads.ids else set()
        parts[name] = ReadPart(columns, reads.ids, tuple(sorted({*columns, *(there & (own | _named(node)))})))
    return parts


def _named(node: Node) -> set[str]:
    """The lineage columns that SQL of the node names, or may name."""
    text = f"{node.body} {getattr(node.spec, 'where', None) or ''}".lower()
    return {name for name in (PARENT, CALLS) if name in text}


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
