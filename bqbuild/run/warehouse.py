"""The tables as people query them: a view for every model of every environment."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import orjson

from bqbuild.core.errors import StoreError
from bqbuild.core.hashing import digest, digest_file
from bqbuild.core.records import LINEAGE_COLUMNS, ROOTS, Node, NodeName, Table
from bqbuild.nodes.query import SAME_EVERYWHERE
from bqbuild.run.artifacts import WAREHOUSE, WAREHOUSE_STAMP, write_json
from bqbuild.run.session import Session
from bqbuild.store.base import Pointer

FILE = WAREHOUSE

STAMP = WAREHOUSE_STAMP
"""A file beside it: the digest of what the views were made of, that of the database, and its views."""

Views = dict[str, str]
"""The SELECT of each view."""

TAKEN = frozenset({"main", "temp", "system", "information_schema", "pg_catalog", "warehouse"})
"""Schemas that DuckDB has, and the name of the database: an environment of such a name gets an underscore behind it."""


def connect(session: Session, pointers: Mapping[NodeName, Pointer] | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory database with the environment's models (or those given) as views, shut off from everything but
    the store."""
    connection = duckdb.connect(":memory:")
    connection.execute(SAME_EVERYWHERE)
    views = _views(session, session.pointers() if pointers is None else pointers)
    _change_views(connection, "main", views, {})
    connection.execute("SET allowed_directories = $1", [[str(session.project.store_path)]])
    connection.execute("SET enable_external_access = false; SET lock_configuration = true")
    return connection


def is_current(session: Session) -> bool:
    """Whether `warehouse.duckdb` is there and shows what all environments point to."""
    return (session.artifacts / FILE).is_file() and _noted(session).get("made_of") == _made_of(
        session, _environments(session)
    )


def write_warehouse(session: Session) -> None:
    """Write `warehouse.duckdb`: the target's environment in `main`, every environment of the project in a schema of
    its own. It is replaced whole, so that a reader keeps the one it opened."""
    path = session.artifacts / FILE
    _remove_leftovers(path)
    fresh = path.with_name(f".{FILE}.{os.getpid()}")
    environments = _environments(session)
    views = {schema: _views(session, pointers) for schema, pointers in environments.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        there = _copied(session, views, fresh)
        with duckdb.connect(str(fresh)) as connection:
            for schema in there.keys() - views.keys():
                connection.execute(f"DROP SCHEMA {quoted(schema)} CASCADE")
            for schema, wanted in views.items():
                _change_views(connection, schema, wanted, there.get(schema, {}))
        noted = {"made_of": _made_of(session, environments), "file": digest_file(fresh), "duckdb": duckdb.__version__}
        os.replace(fresh, path)
        write_json(session.artifacts / STAMP, {**noted, "views": views})
    except (OSError, duckdb.Error) as error:
        raise StoreError(f"cannot write {FILE}: {error}", hint="free disk space, then run again") from error
    finally:
        fresh.unlink(missing_ok=True)


def note_current(session: Session) -> None:
    """It was found to be current now: a run in which nothing changed compares times, and opens nothing."""
    with contextlib.suppress(OSError):
        os.utime(session.artifacts / STAMP)


def _remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed had begun."""
    for left in path.parent.glob(f".{FILE}.*"):
        pid = left.name.removeprefix(f".{FILE}.").partition(".")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            left.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _copied(session: Session, views: Mapping[str, Views], fresh: Path) -> Mapping[str, Views]:
    """Copy the database that is there to `fresh`, and say what views it has; nothing where it is not as it was
    written, or had better be made anew. DuckDB looks into the files of every view that it makes."""
    noted = _noted(session)
    there: Mapping[str, Views] = noted.get("views", {})
    if noted.get("duckdb") != duckdb.__version__ or any(map(_has_twins, [*views.values(), *there.values()])):
        return {}
    try:
        shutil.copyfile(session.artifacts / FILE, fresh)
    except FileNotFoundError:
        return {}
    if digest_file(fresh) == noted.get("file"):
        return there
    fresh.unlink()  # somebody wrote to it, or another process has just replaced it
    return {}


def _has_twins(views: Views) -> bool:
    """Whether names differ in their case alone, so that DuckDB keeps the one that comes last."""
    return len({name.lower() for name in views}) < len(views)


def _noted(session: Session) -> dict[str, Any]:
    """What stands beside the database."""
    try:
        noted = orjson.loads((session.artifacts / STAMP).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return noted if isinstance(noted, dict) else {}


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


def _made_of(session: Session, environments: Mapping[str, Mapping[NodeName, Pointer]]) -> str:
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


def _views(session: Session, pointers: Mapping[NodeName, Pointer]) -> Views:
    """The views of an environment, in the order in which they are to be made. Raises DamagedError."""
    views: Views = {}
    # what the project still has comes last, and wins where names differ in their case alone
    for name, pointer in sorted(pointers.items(), key=lambda item: (item[0] in session.project.nodes, item[0])):
        for side, content in pointer.tables.items():
            table = session.store.tables.find(content)
            if table is not None and not _is_hidden(session, name):
                view = f"{name}__{side}" if side else str(name)
                files = session.store.tables.files(table)
                order = () if side else session.columns.get(name) or ()
                views[view] = select_from(table, files, order)
    return views


def _change_views(connection: duckdb.DuckDBPyConnection, schema: str, wanted: Views, there: Views) -> None:
    """Make the views of a schema that has those of `there` the ones that are wanted."""
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
    for view in there.keys() - wanted.keys():
        connection.execute(f"DROP VIEW {quoted(schema)}.{quoted(view)}")
    for view, select in wanted.items():
        if there.get(view) != select:
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
