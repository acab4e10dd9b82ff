"""What a SQL model may do: be a function of its inputs, and nothing else."""

from __future__ import annotations

from collections.abc import Collection

from sqlglot import exp

from bqbuild.core.errors import ProjectError, Where, did_you_mean
from bqbuild.graph.sql.functions import (
    FILE_FUNCTIONS,
    FORBIDDEN,
    TABLE_FUNCTIONS,
    VOLATILE,
    WITHOUT_PARENTHESES,
    function_names,
)
from bqbuild.graph.sql.parsing import base_tables, place_of

RESERVED = "__bq_"

_STATEMENTS = (exp.DML, exp.DDL, exp.Command, exp.Copy, exp.Attach, exp.Detach, exp.Pragma, exp.Set, exp.Use, exp.Into)
_FILE_SUFFIXES = (".csv", ".tsv", ".parquet", ".json", ".jsonl", ".ndjson", ".txt", ".gz", ".zst", ".db", ".duckdb")


def check_query(tree: exp.Expr, where: Where, *, volatile: bool, refs: Collection[str] | None = None) -> None:
    """Raises ProjectError for what a model may not do. `refs` are the tables it may name; None: any."""
    for node in tree.walk():
        _check_node(node, where, volatile=volatile)
    for table in base_tables(tree):
        _check_table(table, where, refs)


def check_expression(tree: exp.Expr, where: Where | None, *, volatile: bool = False) -> None:
    """Raises ProjectError for what a predicate over one row may not call."""
    for node in tree.walk():
        _check_node(node, where or Where(""), volatile=volatile)


def _check_node(node: exp.Expr, where: Where, *, volatile: bool) -> None:
    if isinstance(node, _STATEMENTS) and not isinstance(node, exp.Query):
        raise _error(f"{node.key.upper()} changes something", node, where, "a SQL model is one SELECT")
    if isinstance(node, exp.Parameter | exp.Placeholder):
        raise _error("parameters have no value here", node, where, "write the value, or {{ var('name') }}")
    if isinstance(node, exp.Identifier) and node.name.lower().startswith(RESERVED):
        raise _error(f"names that begin with `{RESERVED}` are bqbuild's own", node, where)
    if isinstance(node, exp.TableSample) and not volatile:
        raise _error(
            "a sample is another one every time", node, where, "order by a hash and limit, or `volatile: true`"
        )
    if isinstance(node, exp.Join) and node.kind == "POSITIONAL" and not volatile:
        raise _error("tables have no order, so rows can't be joined by position", node, where)
    if isinstance(node, exp.Func):
        _check_function(node, where, volatile=volatile)
    if isinstance(node, exp.Column) and not node.table and not _is_quoted(node):
        name = node.name.lower()
        if name in WITHOUT_PARENTHESES:
            _check_name(name, node, where, volatile=volatile)


def _check_function(node: exp.Func, where: Where, *, volatile: bool) -> None:
    names = function_names(node)
    for name in sorted(names):
        _check_name(name, node, where, volatile=volatile)
    if isinstance(node.parent, exp.Table) and not names & TABLE_FUNCTIONS:
        raise _error(f"{_shown(names)} is not a table that bqbuild knows", node, where, _READ_HINT)
    if names == {"age"} and len(node.expressions) == 1 and not volatile:
        raise _error("age() with one argument looks at the clock", node, where, "give it two, or set `volatile: true`")


_READ_HINT = "declare the file as a source, and read it with {{ source('name') }}"


def _check_name(name: str, node: exp.Expr, where: Where, *, volatile: bool) -> None:
    if name.startswith(FILE_FUNCTIONS) or isinstance(node, exp.ReadCSV):
        raise _error(f"{name}() reads something that is not an input of this model", node, where, _READ_HINT)
    if name in FORBIDDEN or name.startswith("pg_") or name.startswith("duckdb_") or name.startswith("pragma_"):
        raise _error(
            f"{name}() is not a function of the model's inputs", node, where, "pass a value with {{ var('name') }}"
        )
    if name in VOLATILE and not volatile:
        raise _error(
            f"{name}() gives another value every time",
            node,
            where,
            "pass a value with {{ var('name') }}, or set `volatile: true`",
        )


def _check_table(table: exp.Table, where: Where, refs: Collection[str] | None) -> None:
    name = table.name
    if table.args.get("db") or table.args.get("catalog"):
        raise _error(
            f"`{table.sql('duckdb')}` is a table of no project", table, where, "name models with {{ ref('model') }}"
        )
    if table.args.get("version") is not None:
        raise _error("tables have no versions here", table, where)
    if (refs is not None and name not in refs) or (refs is None and _looks_like_a_file(name)):
        hint = _READ_HINT if _looks_like_a_file(name) else did_you_mean(name, refs or ())
        raise _error(
            f"`{name}` is not an input of this model", table, where, hint or "name models with {{ ref('model') }}"
        )


def _looks_like_a_file(name: str) -> bool:
    return "/" in name or "\\" in name or "*" in name or name.lower().endswith(_FILE_SUFFIXES)


def _is_quoted(column: exp.Column) -> bool:
    return isinstance(column.this, exp.Identifier) and bool(column.this.args.get("quoted"))


def _shown(names: Collection[str]) -> str:
    return f"{min(names, default='this')}()"


def _error(message: str, node: exp.Expr, where: Where, hint: str | None = None) -> ProjectError:
    return ProjectError(message, where=place_of(node, where), hint=hint)
