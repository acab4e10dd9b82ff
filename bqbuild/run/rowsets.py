"""Rows for people to look at: of a model, or of a query over models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from bqbuild.core.errors import BuildError, UsageError, Where, did_you_mean
from bqbuild.core.records import NodeName
from bqbuild.run.session import Session
from bqbuild.run.warehouse import connect, quoted
from bqbuild.store.base import Pointer

INLINE = Where("--inline")


@dataclass(frozen=True, slots=True)
class RowSet:
    """Some rows, their columns in order, and of how many they are where that is known."""

    columns: list[str]
    rows: list[dict[str, Any]]
    total: int | None = None


def model_rows(session: Session, name: str, limit: int) -> RowSet:
    """The first rows of a model or side table (`kept__rejects`); all of them where `limit` is negative.

    Raises UsageError for a name that nothing has, BuildError for a model that is not built.
    """
    pointers = session.pointers()
    views = {f"{node}__{side}" if side else str(node) for node, pointer in pointers.items() for side in pointer.tables}
    if name not in views:
        raise _not_there(session, name, views)
    with connect(session, _only(pointers, name)) as connection:
        rows = _rows(connection, f"SELECT * FROM {quoted(name)}", limit)
        counted = connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()
    return RowSet(rows.columns, rows.rows, counted[0] if counted else None)


def query_rows(session: Session, source: str, limit: int) -> RowSet:
    """The first rows of a query (SQL with Jinja); all of them where `limit` is negative.

    Raises ProjectErrors for Jinja, BuildError for SQL that does not run or models that are not built.
    """
    rendered = session.project.render_sql(source, INLINE)
    pointers = session.pointers()
    for ref in rendered.refs:
        if ref.node not in pointers:
            raise _not_there(session, str(ref.node), set())
    with connect(session, pointers) as connection:
        return _rows(connection, rendered.body.strip().rstrip(";"), limit)


def _rows(connection: duckdb.DuckDBPyConnection, query: str, limit: int) -> RowSet:
    try:
        table = connection.sql(query)
        if table is None:
            raise UsageError("--inline takes a query", hint='bqbuild show --inline "select …"')
        found = (table if limit < 0 else table.limit(limit)).to_arrow_table()
    except duckdb.Error as error:
        raise BuildError(str(error).strip().splitlines()[0], where=INLINE) from error
    return RowSet(found.column_names, found.to_pylist())


def _only(pointers: Mapping[NodeName, Pointer], name: str) -> dict[NodeName, Pointer]:
    """The pointer that the view is of: one view is enough to look at one table."""
    return {node: pointer for node, pointer in pointers.items() if node == name or name.startswith(f"{node}__")}


def _not_there(session: Session, name: str, views: set[str]) -> BuildError | UsageError:
    base = NodeName(name if NodeName(name) in session.project.nodes else name.rpartition("__")[0])
    if base not in session.project.nodes:
        known = {str(node) for node in session.project.nodes} | views
        return UsageError(f"there is no model `{name}`", hint=did_you_mean(name, known))
    if base in views:
        sides = sorted(view for view in views if view.startswith(f"{base}__"))
        return UsageError(f"`{base}` has no table `{name}`", hint=f"it has {', '.join(sides)}" if sides else None)
    return BuildError(f"`{base}` is not built in `{session.environment}`", hint=f"bqbuild run --select +{base}")
