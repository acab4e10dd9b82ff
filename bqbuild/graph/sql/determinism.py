"""Makes a query give the same rows whatever order its inputs are read in.

Aggregates and window functions that depend on the order of rows (by ties, or by rounding) are given one; a LIMIT gets a
total order. Orders that the user gave are kept, and only completed: `keys` are expressions that tell the rows of the
scope apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import sqlglot
from sqlglot import exp

from bqbuild.graph.sql.functions import (
    EXACT_ON_INTEGERS,
    MACROS,
    ORDER_FREE,
    PICKS_BY_FRAME,
    RANKS_BY_ROW,
    function_names,
    is_aggregate,
)

IsExact = Callable[[exp.Expr], bool]
"""Whether an expression is certainly no floating-point number."""

_EXACT_TYPES = ("TINYINT", "SMALLINT", "INT", "BIGINT", "INT128", "DECIMAL", "BOOLEAN", "UTINYINT", "USMALLINT", "UINT")


def order_aggregates(select: exp.Select, keys: Sequence[exp.Expr], is_exact: IsExact) -> None:
    """Give every order-dependent aggregate of the scope a total order."""
    _expand_macros(select)
    for call in list(own_nodes(select)):
        window = _window_of(call)
        if not is_aggregate(call) or not _depends_on_order(call, is_exact):
            continue
        names = function_names(call)
        if window is None:
            _add_order(call, keys)
        elif not names & RANKS_BY_ROW:
            spec = _specification(window, select)
            user_order = spec.args.get("order")
            before = [ordered.copy() for ordered in user_order.expressions] if user_order else []
            _add_order(call, keys, before)


def order_windows(select: exp.Select, keys: Sequence[exp.Expr]) -> None:
    """Complete the order of windows whose functions tell peers apart. RANK and the like are left alone: adding a key
    would change what they mean, and they are deterministic as they stand."""
    if not keys:
        return
    for window in [node for node in own_nodes(select) if isinstance(node, exp.Window)]:
        call = _called(window)
        spec = _specification(window, select)
        if not _counts_rows(spec) and (_has_order(call) or not function_names(call) & RANKS_BY_ROW):
            continue
        order = spec.args.get("order")
        items = [*(item.copy() for item in order.expressions)] if order else []
        partition = [part.copy() for part in spec.args.get("partition_by") or ()]
        frame = spec.args.get("spec")
        window.replace(
            exp.Window(
                this=window.this.copy(),
                partition_by=partition,
                order=exp.Order(expressions=[*items, *map(_ascending, keys)]),
                spec=frame.copy() if frame else None,
                over="OVER",
            )
        )


def order_limit(query: exp.Query, keys: Sequence[exp.Expr]) -> None:
    """Complete the ORDER BY of a query whose LIMIT or OFFSET cuts rows off, or of DISTINCT ON."""
    distinct = query.args.get("distinct")
    on = distinct.args.get("on") if isinstance(distinct, exp.Distinct) else None
    if not keys or not (query.args.get("limit") or query.args.get("offset") or on):
        return
    order = query.args.get("order")
    items = list(order.expressions) if order else []
    if any(isinstance(item.this, exp.Var) and item.this.name.upper() == "ALL" for item in items):
        return  # ORDER BY ALL: equal rows are told apart by nothing that can be seen
    query.set("order", exp.Order(expressions=[*items, *map(_ascending, keys)]))


def own_nodes(select: exp.Expr) -> Iterator[exp.Expr]:
    """The nodes of one scope: what is above FROM and beside it, without subqueries of any kind."""
    stack = [child for child in select.iter_expressions() if not isinstance(child, exp.With)]
    while stack:
        node = stack.pop()
        if isinstance(node, exp.Query | exp.Values):
            continue
        yield node
        stack.extend(node.iter_expressions())


def certainly_exact(node: exp.Expr, column_is_exact: Callable[[exp.Column], bool]) -> bool:
    """Whether a value is an integer, a decimal or a truth value by its form alone: adding such up never rounds."""
    match node:
        case exp.Null() | exp.Count() | exp.CountIf() | exp.Length() | exp.Boolean() | exp.Predicate():
            return True
        case exp.Literal():
            return not node.is_string and node.name.isdigit()
        case exp.Column():
            return column_is_exact(node)
        case exp.Cast():
            return node.to.this.name in _EXACT_TYPES
    parts = _parts_of_value(node)
    return bool(parts) and all(certainly_exact(part, column_is_exact) for part in parts)


def _parts_of_value(node: exp.Expr) -> list[exp.Expr]:
    """The parts of an expression that is exact where all of them are; none for one of which that is not known."""
    match node:
        case exp.Paren() | exp.Neg() | exp.Order():
            return [node.this]
        case exp.Add() | exp.Sub() | exp.Mul() | exp.Mod():
            return [node.left, node.right]
        case exp.Case():
            return [*(branch.args["true"] for branch in node.args["ifs"]), node.args.get("default") or exp.Null()]
        case exp.If():
            return [node.args["true"], node.args.get("false") or exp.Null()]
        case exp.Coalesce():
            return [node.this, *node.expressions]
    return []


def _depends_on_order(call: exp.Expr, is_exact: IsExact) -> bool:
    names = function_names(call)
    if names & ORDER_FREE:
        return False
    if names & EXACT_ON_INTEGERS and not isinstance(call.this, exp.Distinct):
        arguments = _arguments(call)
        return not (arguments and is_exact(arguments[0]))
    if isinstance(call.parent, exp.Window | exp.IgnoreNulls | exp.RespectNulls) and _window_of(call) is not None:
        return not names & {"rank", "dense_rank", "percent_rank", "cume_dist"}
    return not names & PICKS_BY_FRAME or _window_of(call) is not None or bool(names & {"first", "last"})


def _add_order(call: exp.Expr, keys: Sequence[exp.Expr], before: Sequence[exp.Expr] = ()) -> None:
    """Put `ORDER BY` into the last argument of an aggregate, after what it already orders by."""
    slot, value = _last_argument(call)
    if slot is None or value is None:
        return
    inner = value.this if isinstance(value, exp.Order) else value
    given = list(value.expressions) if isinstance(value, exp.Order) else list(before)
    if isinstance(inner, exp.Distinct):
        # DuckDB wants the order of a DISTINCT aggregate to be among its arguments, which then tells all apart.
        new = [_ascending(part) for part in inner.expressions[:1]]
    else:
        new = [_ascending(key) for key in keys] or [_ascending(part) for part in _arguments(call)[:2]]
    value.replace(exp.Order(this=inner.copy(), expressions=[*(item.copy() for item in given), *new]))


def _last_argument(call: exp.Expr) -> tuple[str | None, exp.Expr | None]:
    """Where sqlglot keeps the order of an aggregate: in its last positional argument."""
    if isinstance(call, exp.Anonymous | exp.AnonymousAggFunc):
        return ("expressions", call.expressions[-1]) if call.expressions else (None, None)
    if isinstance(call, exp.GroupConcat):
        return "this", call.this
    for slot in reversed(call.arg_types):
        value = call.args.get(slot)
        if isinstance(value, list):
            if value:
                return slot, value[-1]
        elif isinstance(value, exp.Expr):
            return slot, value
    return None, None


def _arguments(call: exp.Expr) -> list[exp.Expr]:
    """The arguments of an aggregate, without DISTINCT and ORDER BY."""
    found: list[exp.Expr] = []
    for part in call.iter_expressions():
        inner = part.this if isinstance(part, exp.Order) else part
        found.extend(inner.expressions if isinstance(inner, exp.Distinct) else [inner])
    return [part for part in found if isinstance(part, exp.Expr) and not isinstance(part, exp.Star)]


def _has_order(call: exp.Expr) -> bool:
    return any(isinstance(part, exp.Order) for part in call.iter_expressions())


def _window_of(call: exp.Expr) -> exp.Window | None:
    """The OVER that a function belongs to, seen through FILTER and IGNORE NULLS."""
    above = call.parent
    inside = call
    while isinstance(above, exp.Filter | exp.IgnoreNulls | exp.RespectNulls) and above.this is inside:
        inside, above = above, above.parent
    return above if isinstance(above, exp.Window) and above.this is inside and above.args.get("over") else None


def _called(window: exp.Window) -> exp.Expr:
    call = window.this
    while isinstance(call, exp.Filter | exp.IgnoreNulls | exp.RespectNulls):
        call = call.this
    return call  # type: ignore[no-any-return]  # sqlglot's `this` is untyped


def _counts_rows(spec: exp.Expr) -> bool:
    """Whether a window's frame is of ROWS: which rows are in it depends on the order of peers."""
    frame = spec.args.get("spec")
    return isinstance(frame, exp.WindowSpec) and str(frame.args.get("kind")).upper() == "ROWS"


def _expand_macros(select: exp.Select) -> None:
    for call in [node for node in own_nodes(select) if isinstance(node, exp.Anonymous)]:
        template = MACROS.get(call.name.lower())
        if template is not None:
            arguments = [f"({argument.sql('duckdb')})" for argument in call.expressions]
            expanded = sqlglot.parse_one(template.format(*arguments), read="duckdb")
            call.replace(exp.Paren(this=expanded) if isinstance(expanded, exp.Binary) else expanded)


def _specification(window: exp.Window, select: exp.Select) -> exp.Expr:
    """The window that holds partition, order and frame: itself, or the named one of the WINDOW clause."""
    name = window.args.get("alias")
    if name is not None:
        for named in select.args.get("windows") or ():
            if named.name.lower() == name.name.lower():
                return named  # type: ignore[no-any-return]  # sqlglot's args are untyped
    return window


def _ascending(key: exp.Expr) -> exp.Ordered:
    return exp.Ordered(this=key.copy(), nulls_first=False)
