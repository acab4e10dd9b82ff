"""What one scope of a query (one SELECT) is made of, and small pieces of SQL to rewrite it with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlglot
from sqlglot import exp

from bqbuild.graph.sql.determinism import own_nodes
from bqbuild.graph.sql.functions import is_aggregate


@dataclass(frozen=True, slots=True)
class Grouping:
    """How a scope groups: the expressions that tell its groups apart, or no way to know them."""

    keys: tuple[exp.Expr, ...]
    known: bool
    one_row: bool = False


def grouping_of(select: exp.Select) -> Grouping | None:
    """None where the scope keeps rows."""
    group = select.args.get("group")
    if group is None:
        aggregates = any(is_aggregate(node) and not _is_windowed(node) for node in own_nodes(select))
        return Grouping((), known=True, one_row=True) if aggregates or select.args.get("having") else None
    if group.args.get("all"):
        return _all_groups(select)
    keys: list[exp.Expr] = []
    for item in group.expressions:
        is_position = isinstance(item, exp.Literal) and not item.is_string
        key = _projection(select, int(item.name)) if is_position else item
        if key is None or isinstance(key, exp.Cube | exp.Rollup | exp.GroupingSets):
            return Grouping((), known=False)
        keys.append(key)
    if any(group.args.get(kind) for kind in ("cube", "rollup", "grouping_sets", "totals")):
        return Grouping((), known=False)
    return Grouping(tuple(keys), known=True)


def _all_groups(select: exp.Select) -> Grouping:
    """GROUP BY ALL groups by every projection that aggregates nothing."""
    keys = []
    for item in select.expressions:
        if (
            item.is_star
            or isinstance(item, exp.Columns)
            or (item.find(exp.Columns, exp.Star) and not item.find(exp.Count))
        ):
            return Grouping((), known=False)
        value = item.unalias()
        if not any(is_aggregate(node) and not _is_windowed(node) for node in [value, *own_nodes(value)]):
            keys.append(value)
    return Grouping(tuple(keys), known=True)


def fans_out(select: exp.Select) -> bool:
    """Whether UNNEST in the list of a SELECT makes many rows of one."""
    return any(isinstance(node, exp.Unnest | exp.Explode) for item in select.expressions for node in item.walk())


def is_plain_star(star: exp.Star) -> bool:
    """Whether a star stands where it means columns one by one: in the list of a SELECT, in COUNT(*), in COLUMNS(*)."""
    holder = star.parent
    if isinstance(holder, exp.Column):
        holder = holder.parent
    return isinstance(holder, exp.Select | exp.Count | exp.Columns)


def from_parts(select: exp.Select) -> Iterator[exp.Expr]:
    start = select.args.get("from_")
    if start is not None:
        yield start
    yield from select.args.get("joins") or ()
    yield from select.args.get("laterals") or ()


def subqueries(select: exp.Select) -> list[exp.Expr]:
    """The queries inside the expressions of a scope: not those of its FROM, not its CTEs."""
    found: list[exp.Expr] = []
    for key, value in select.args.items():
        if key in ("from_", "with_", "laterals"):
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, exp.Join):
                for part in (item.args.get("on"),):
                    found.extend(nearest(part, exp.Query) if part is not None else ())
            elif isinstance(item, exp.Expr):
                found.extend(nearest(item, exp.Query))
    return found


def nearest(node: exp.Expr, kind: type[exp.Expr]) -> Iterator[exp.Expr]:
    """The nodes of a kind below `node` (or itself) that are not inside another query."""
    stack = [node]
    while stack:
        current = stack.pop()
        if isinstance(current, kind):
            yield current
        elif not isinstance(current, exp.Query):
            stack.extend(current.iter_expressions(reverse=True))


def _is_windowed(node: exp.Expr) -> bool:
    above, inside = node.parent, node
    while isinstance(above, exp.Filter | exp.IgnoreNulls | exp.RespectNulls) and above.this is inside:
        inside, above = above, above.parent
    return isinstance(above, exp.Window) and above.this is inside


def is_distinct(select: exp.Select) -> bool:
    distinct = select.args.get("distinct")
    return isinstance(distinct, exp.Distinct) and not distinct.args.get("on")


def movable_tail(query: exp.Query) -> dict[str, exp.Expr] | None:
    """Take ORDER BY, LIMIT and OFFSET off a query, to put them on one around it; None where its order names more than
    the columns that it gives."""
    order = query.args.get("order")
    names = set(query.named_selects)
    for item in order.expressions if order else ():
        value = item.this
        simple = isinstance(value, exp.Literal) or (
            isinstance(value, exp.Column) and not value.table and value.name in names
        )
        if not simple:
            return None
    tail = {key: query.args[key] for key in ("order", "limit", "offset") if query.args.get(key)}
    for key in tail:
        query.set(key, None)
    return tail


def ordinals(query: exp.Query) -> tuple[exp.Expr, ...]:
    """The positions of all columns of a query, as keys of an ORDER BY; none where a star hides their number."""
    items = query.selects
    if any(item.is_star or item.find(exp.Columns) for item in items):
        return ()
    return tuple(exp.Literal.number(position) for position in range(1, len(items) + 1))


def _projection(select: exp.Select, position: int) -> exp.Expr | None:
    """The expression at a position of the SELECT list, where no star comes before."""
    items = select.expressions[:position]
    if len(items) < position or any(item.is_star or item.find(exp.Columns) for item in items):
        return None
    return items[-1].unalias()  # type: ignore[no-any-return]  # sqlglot's lists are untyped


def column_named(table: str | None, name: str) -> exp.Column:
    return exp.column(
        exp.to_identifier(name, quoted=True), table=exp.to_identifier(table, quoted=True) if table else None
    )


def parse_select(sql: str) -> exp.Select:
    tree = sqlglot.parse_one(sql, read="duckdb")
    assert isinstance(tree, exp.Select), "templates of this module are SELECTs"
    return tree


def parse_expression(sql: str) -> exp.Expr:
    return parse_select(f"SELECT {sql}").expressions[0].pop()  # type: ignore[no-any-return]  # sqlglot's lists are untyped
