"""The tables as people query them: a view for every model of every environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb

from bqbuild.core.errors import StoreError
from bqbuild.core.hashing import digest
from bqbuild.core.records import LINEAGE_COLUMNS, ROOTS, Node, NodeName, Table
from bqbuild.run.artifacts import WAREHOUSE
from bqbuild.run.session import Session
from bqbuild.store.base import Pointer

FILE = WAREHOUSE

STAMP = ".warehouse"
"""A file beside it, with the digest of what the views were made of."""

TAKEN = frozenset({"main", "temp", "system", "information_schema", "pg_catalog", "warehouse"})
"""Schemas that DuckDB has, and the name of the database: an environment of such a name gets an underscore behind it."""


def connect(session: Session, pointers: Mapping[NodeName, Pointer] | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory database with the environment's models (or those given) as views, shut off from everything but
    the store."""
    connection = duckdb.connect(":memory:")
    _create_views(connection, session, "main", session.pointers() if pointers is None else pointers)
    connection.execute("SET allowed_directories = $1", [[str(session.project.store_path)]])
    connection.execute("SET enable_external_access = false; SET lock_configuration = true")
    return connection


def is_current(session: Session) -> bool:
    """Whether `warehouse.duckdb` is there and shows what all environments point to."""
    stamp = session.artifacts / STAMP
    try:
        return (session.artifacts / FILE).is_file() and stamp.read_text() == _stamp(session, _environments(session))
    except OSError:
        return False


def write_warehouse(session: Session) -> None:
    """Write `warehouse.duckdb`: the target's environment in `main`, every environment of the project in a schema of
    its own. It is replaced whole, so that a reader keeps the one it opened."""
    path = session.artifacts / FILE
    fresh = path.with_name(f".{FILE}.{os.getpid()}")
    environments = _environments(session)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        with duckdb.connect(str(fresh)) as connection:
            for schema, pointers in environments.items():
                _create_views(connection, session, schema, pointers)
        os.replace(fresh, path)
        (session.artifacts / STAMP).write_text(_stamp(session, environments))
    except (OSError, duckdb.Error) as error:
        raise StoreError(f"cannot write {FILE}: {error}", hint="free disk space, then run again") from error
    finally:
        fresh.unlink(missing_ok=True)


def _environments(session: Session) -> dict[str, dict[NodeName, Pointer]]:
    """The pointers by schema. DuckDB does not tell upper from lower case, the store does."""
    own = replace(session.project, sample=None).environment
    found = {"main": session.store.environments.read(own)}
    taken = set(TAKEN)
    for environment in session.store.environments.names():
        project, _, schema = environment.partition("/")
        if project == session.project.name and schema:
            while schema.lower() in taken:
                schema += "_"
            taken.add(schema.lower())
            found[schema] = session.store.environments.read(environment)
    return found


def _stamp(session: Session, environments: Mapping[str, Mapping[NodeName, Pointer]]) -> str:
    """The digest of all that the views depend on."""
    tables = {
        schema: {str(name): dict(pointer.tables) for name, pointer in pointers.items()}
        for schema, pointers in environments.items()
    }
    # the order in which columns are declared; the table itself tells of other columns
    columns = {str(name): _declared(node) for name, node in session.project.nodes.items()}
    hidden = sorted(name for name in session.project.nodes if _is_hidden(session, name))
    return digest([tables, columns, hidden])


def _declared(node: Node) -> list[str]:
    output = getattr(node.spec, "output", None)
    return [*getattr(node.spec, "matrix", ()), *(output.columns if output else ())]


def _create_views(
    connection: duckdb.DuckDBPyConnection, session: Session, schema: str, pointers: Mapping[NodeName, Pointer]
) -> None:
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
    # what the project still has comes last, and wins where names differ in their case alone
    for name, pointer in sorted(pointers.items(), key=lambda item: (item[0] in session.project.nodes, item[0])):
        for side, content in pointer.tables.items():
            table = session.store.tables.find(content)
            if table is not None and not _is_hidden(session, name):
                view = f"{name}__{side}" if side else str(name)
                files = session.store.tables.files(table)
                order = () if side else session.columns.get(name) or ()
                select = select_from(table, files, order)
                connection.execute(f"CREATE OR REPLACE VIEW {quoted(schema)}.{quoted(view)} AS {select}")


def _is_hidden(session: Session, name: NodeName) -> bool:
    node = session.project.nodes.get(name)
    return node is not None and node.kind == "sql" and node.spec.materialized == "ephemeral"


def select_from(table: Table, files: list[Path], order: Sequence[str] = ()) -> str:
    """A SELECT of a table's rows: the user's columns, those of `order` first, as it has them (the store keeps what an
    LLM makes by name, as the order of YAML keys is form); then bqbuild's. What stays inside the store is left out."""
    names = [column.name for column in table.columns]
    own = [name for name in names if name in LINEAGE_COLUMNS and name != ROOTS]
    first = [name for name in order if name in table.user_columns]
    shown = [*first, *(name for name in table.user_columns if name not in first), *own]
    listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    return f"SELECT {', '.join(quoted(name) for name in shown)} FROM read_parquet([{listed}])"


def quoted(name: str) -> str:
    """A SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
