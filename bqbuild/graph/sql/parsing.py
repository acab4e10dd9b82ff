"""From the text of a SQL model to a syntax tree: exactly one query, and its tables told from its CTEs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ParseError, SqlglotError, TokenError

from bqbuild.core.errors import ProjectError, Where
from bqbuild.core.records import Node

_AT_LINE = re.compile(r"Line (\d+), Col: (\d+)")

QUERIES = (exp.Select, exp.SetOperation, exp.Subquery, exp.Values, exp.Pivot)


def parse_query(body: str, where: Where) -> exp.Expr:
    """The one query that `body` is. Raises ProjectError, with line and column where they are known."""
    try:
        trees = sqlglot.parse(body, read="duckdb")
    except (ParseError, TokenError) as error:
        raise _unreadable(error, where) from error
    except RecursionError as error:
        raise ProjectError("this SQL is nested too deeply", where=where) from error
    found = [tree for tree in trees if tree is not None and not isinstance(tree, exp.Semicolon)]
    if not found:
        raise ProjectError("there is no SQL here", where=where, hint="a SQL model is one SELECT")
    if len(found) > 1:
        raise ProjectError(f"there are {len(found)} statements here", where=where, hint="a SQL model is one SELECT")
    if not isinstance(found[0], QUERIES):
        raise ProjectError(f"{_statement(found[0])} is not a query", where=where, hint="a SQL model is one SELECT")
    return found[0]


def without_semicolon(body: str) -> str:
    """The text of a query that is to stand in parentheses; lines stay where they are."""
    tokens = DuckDB().tokenize(body)
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        body = body[: tokens[-1].start]
        tokens = tokens[:-1]
    return body


def place_of(node: exp.Expr, where: Where) -> Where:
    """Where in the file a node is: its own position, or that of the first thing below or above it that has one."""
    for candidate in _around(node):
        line = candidate.meta.get("line")
        if isinstance(line, int):
            start = candidate.meta.get("end", 0) - candidate.meta.get("start", 0)
            return place_in(where, line, max(candidate.meta.get("col", 0) - start, 0))
    return where


def body_place(node: Node) -> Where:
    """Where the SQL of a node begins: the file itself, without a line, or a line of a YAML file."""
    place = node.places.get("sql", node.where)
    if node.path.endswith(".sql") or not place.line:
        return Where(node.path)
    in_block = "\n" in node.body.strip()  # `sql: |` stands on the line above
    return Where(place.file, place.line + in_block)


def place_in(where: Where, line: int, column: int) -> Where:
    """Line and column of a body that begins at `where`. Inside YAML columns are not known: the text is indented."""
    return Where(where.file, where.line + line - 1) if where.line else Where(where.file, line, column)


def base_tables(tree: exp.Expr) -> Iterator[exp.Table]:
    """The tables that are inputs: not names of CTEs, not calls of table functions."""
    for table in tree.find_all(exp.Table):
        if isinstance(table.this, exp.Identifier) and visible_cte(table) is None:
            yield table


def visible_cte(table: exp.Table) -> exp.CTE | None:
    """The CTE that a table's name means, if it means one: the nearest that is defined before the place of use."""
    if table.args.get("db"):
        return None
    name = table.name.lower()
    inside: exp.Expr = table
    above = table.parent
    while above is not None:
        if isinstance(above, exp.With):
            ctes = _seen_from(above, inside)
        else:
            clause = above.args.get("with_")
            ctes = clause.expressions if isinstance(clause, exp.With) and clause is not inside else []
        for cte in reversed(ctes):
            if isinstance(cte, exp.CTE) and cte.alias.lower() == name:
                return cte
        inside, above = above, above.parent
    return None


def _seen_from(clause: exp.With, inside: exp.Expr) -> list[exp.Expr]:
    """The CTEs that the body of the CTE `inside` can name: those before it, and itself where it is recursive."""
    position = next(number for number, cte in enumerate(clause.expressions) if cte is inside)
    return list(clause.expressions[: position + 1 if clause.args.get("recursive") else position])


def _around(node: exp.Expr) -> Iterator[exp.Expr]:
    yield from node.walk()
    while node.parent is not None:
        node = node.parent
        yield node


def _statement(tree: exp.Expr) -> str:
    if isinstance(tree, exp.Command):
        return str(tree.this).upper()
    return tree.key.upper()


def _unreadable(error: SqlglotError, where: Where) -> ProjectError:
    details = getattr(error, "errors", None)
    if details:
        line, column = details[0].get("line"), details[0].get("col")
        message = str(details[0].get("description") or error).rstrip(".")
        near = details[0].get("highlight")
        message = f"{message} near `{near}`" if near else message
    else:
        match = _AT_LINE.search(str(error))
        line, column = (int(match[1]), int(match[2])) if match else (None, None)
        message = str(error).splitlines()[0].rstrip(".")
    place = place_in(where, line, column or 0) if line else where
    return ProjectError(f"this SQL cannot be parsed: {message}", where=place)
