"""SQL predicates in YAML (`where`, `accept`, rules): which columns they read, and the form that counts.

Pure: nothing is evaluated here.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from bqbuild.core.errors import ProjectError, Where
from bqbuild.graph.sql.identity import readable_identity
from bqbuild.graph.sql.safety import check_expression


@dataclass(frozen=True, slots=True)
class Predicate:
    """A parsed predicate: the columns it names, in lower or upper case as written, and its normalised text."""

    columns: frozenset[str]
    identity: str


def parse_predicate(text: str, where: Where | None = None, *, volatile: bool = False) -> Predicate:
    """Parse a DuckDB predicate over the columns of one row; with `volatile` it may look at the clock.

    Raises ProjectError for what is not one.
    """
    try:
        tree = sqlglot.parse_one(f"SELECT 1 WHERE {text}", read="duckdb")
    except SqlglotError as error:
        reason = str(error).splitlines()[0].split(". Line")[0]
        raise ProjectError(f"`{text}` is not a SQL predicate: {reason}", where=where) from error
    condition = tree.args.get("where")
    if not isinstance(tree, exp.Select) or condition is None or set(_given(tree)) - {"expressions", "where"}:
        raise ProjectError(f"`{text}` is not a SQL predicate", where=where, hint="write one boolean expression")
    if condition.find(exp.Select) is not None:
        raise ProjectError(
            f"`{text}` has a subquery", where=where, hint="a predicate sees one row: join in a SQL model instead"
        )
    check_expression(condition, where, volatile=volatile)
    # `meta.lang` is a field of the column `meta`: a predicate has no tables to qualify with
    columns = frozenset(column.parts[0].name for column in condition.find_all(exp.Column))
    return Predicate(columns, readable_identity(condition).removeprefix("WHERE "))


def _given(tree: exp.Expression) -> list[str]:
    return [key for key, value in tree.args.items() if value]
