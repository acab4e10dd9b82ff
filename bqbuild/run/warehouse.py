"""The tables as people query them: a view for every model of every environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb

from bqbuild.core.errors import StoreError
from bqbuild.core.records import LINEAGE_COLUMNS, ROOTS, NodeName, Table
from bqbuild.run.artifacts import WAREHOUSE
from bqbuild.run.session import Session
from bqbuild.store.base import Pointer

FILE = WAREHOUSE


def connect(session: Session, pointers: Mapping[NodeName, Pointer] | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory database with the environment's models (or those given) as views, shut off from everything but
    the store."""
    connection = duckdb.connect(":memory:")
    _create_views(connection, session, "main", session.pointers() if pointers is None else pointers)
    connection.execute("SET allowed_directories = $1", [[str(session.project.store_path)]])
    connection.execute("SET enable_external_access = false; SET lock_configuration = true")
    return connection


def write_warehouse(session: Session) -> None:
    """Write `warehouse.duckdb`: the target's environment in `main`, every environment of the project in a schema of
    its own. It is replaced whole, so that a reader keeps the one it opened."""
    path = session.artifacts / FILE
    fresh = path.with_name(f".{FILE}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        with duckdb.connect(str(fresh)) as connection:
            own = replace(session.project, sample=None).environment
            _create_views(connection, session, "main", session.store.environments.read(own))
            for environment in session.store.environments.names():
                project, _, name = environment.partition("/")
                if project == session.project.name and name:
                    _create_views(connection, session, name, session.store.environments.read(environment))
        os.replace(fresh, path)
    except (OSError, duckdb.Error) as error:
        raise StoreError(f"cannot write {FILE}: {error}", hint="free disk space, then run again") from error
    finally:
        fresh.unlink(missing_ok=True)


def _create_views(
    connection: duckdb.DuckDBPyConnection, session: Session, schema: str, pointers: Mapping[NodeName, Pointer]
) -> None:
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
    for name, pointer in sorted(pointers.items()):
        for side, digest in pointer.tables.items():
            table = session.store.tables.find(digest)
            if table is not None and not _is_hidden(session, name):
                view = f"{name}__{side}" if side else str(name)
                files = session.store.tables.files(table)
                order = () if side else session.columns.get(name) or ()
                select = select_from(table, files, order)
                connection.execute(f"CREATE VIEW {quoted(schema)}.{quoted(view)} AS {select}")


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
