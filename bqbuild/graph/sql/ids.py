"""Carries row ids and roots through a query, without changing what the query means.

Every input is offered twice by whoever runs the query: as `bq_rows."name"` with two more columns, the row's id and its
roots, and as `bq_plain."name"` without. A scope (one SELECT) hides those columns from its stars and hands two of its
own up, made from those of its sources:

- one source whose rows it keeps: its id and roots (through CTEs, subqueries, WHERE, windows, QUALIFY, LIMIT);
- joins: a hash of the ids of all sources, and the union of their roots;
- GROUP BY: a hash of the group's values; an aggregate without GROUP BY: one constant; roots of all rows of the group;
- DISTINCT and UNION: a hash of the row; the roots of all equal rows;
- UNION ALL: each branch its own.

What it can't follow (PIVOT, recursion, NATURAL JOIN, EXCEPT …) has no lineage: such rows are named by their content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from bqbuild.core.records import LINEAGE_COLUMNS, ROOTS, Column
from bqbuild.graph.sql.determinism import certainly_exact, order_aggregates, order_limit, order_windows, own_nodes
from bqbuild.graph.sql.scopes import (
    Grouping,
    column_named,
    fans_out,
    from_parts,
    grouping_of,
    is_distinct,
    is_plain_star,
    movable_tail,
    nearest,
    ordinals,
    parse_expression,
    parse_select,
    subqueries,
)

ROW_SCHEMA = "bq_rows"
PLAIN_SCHEMA = "bq_plain"
ROW_ID = "__bq_id"
ROW_ROOTS = "__bq_roots"

MAX_ROOTS = 1000
"""Roots that a row keeps, the smallest ones: an aggregate over a whole table must not drag the table along."""

_COLLECTED = f"COALESCE(LIST_SORT(LIST_DISTINCT(FLATTEN(LIST({{}}))))[1:{MAX_ROOTS}], CAST([] AS VARCHAR[]))"


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a query hands up: whether its ids are unique, and the columns that stars above must not see."""

    unique: bool
    hidden: tuple[str, ...] = (ROW_ID, ROW_ROOTS)


@dataclass(frozen=True, slots=True)
class _Source:
    """One thing in a FROM: its alias; its lineage if it has any; whether it is the right side of SEMI or ANTI."""

    alias: str
    lineage: Lineage | None
    filters_only: bool = False


_Ctes = Mapping[str, Lineage | None]
Schemas = Mapping[str, Sequence[Column] | None]


class Compiler:
    """Rewrites one syntax tree in place. `tables` maps the id() of each input's Table node to the input's name."""

    def __init__(self, tables: Mapping[int, str], schemas: Schemas, shown: Mapping[str, tuple[str, ...]]) -> None:
        self._tables = tables
        self._shown = shown
        self._exact = _exact_columns(schemas)
        self._columns = {column.name.lower() for columns in schemas.values() for column in columns or ()}
        self._fresh = 0

    def query(self, node: exp.Expr, ctes: _Ctes, *, emit: bool) -> Lineage | None:
        """Rewrite a query that has a parent. With `emit` its result gets the two columns, where that is possible."""
        ctes = self._with(node, ctes)
        if isinstance(node, exp.Select):
            return self._select(node, ctes, emit)
        if isinstance(node, exp.SetOperation):
            return self._set_operation(node, ctes, emit)
        if isinstance(node, exp.Subquery) and isinstance(node.this, exp.Query):
            keeps = emit and not any(node.args.get(key) for key in ("order", "limit", "offset", "pivots"))
            return self.query(node.this, ctes, emit=keeps)
        self._darken(node, ctes)
        return None

    def _with(self, node: exp.Expr, ctes: _Ctes) -> _Ctes:
        clause = node.args.get("with_")
        if not isinstance(clause, exp.With):
            return ctes
        known = dict(ctes)
        for cte in clause.expressions:
            name = cte.alias.lower()
            if clause.args.get("recursive"):
                known[name] = None
            known[name] = self.query(cte.this, known, emit=not clause.args.get("recursive"))
        return known

    def _select(self, select: exp.Select, ctes: _Ctes, emit: bool) -> Lineage | None:
        dark = self._is_beyond_us(select)
        sources = [source for part in from_parts(select) for source in self._source(part, ctes, dark)]
        for subquery in subqueries(select):
            self.query(subquery, ctes, emit=False)
        contributing = [source for source in sources if source.lineage and not source.filters_only]
        _hide(select, contributing)
        grouping = grouping_of(select)
        rows = _row_keys(sources)
        # a constant tells nothing apart, and 7 in an ORDER BY would mean the seventh column
        keys = rows if grouping is None else tuple(key for key in grouping.keys if key.find(exp.Column))
        order_aggregates(select, rows, lambda node: certainly_exact(node, self._exact))
        order_windows(select, keys)
        if is_distinct(select):
            if emit and contributing:
                return self._distinct_select(select, contributing)
            self._cut(select)
            return None
        order_limit(select, (*keys, *ordinals(select)) if not keys or fans_out(select) else keys)
        if not emit or not contributing:
            return None
        visible = sum(not source.filters_only for source in sources)
        return _emit(select, contributing, visible, grouping)

    def _distinct_select(self, select: exp.Select, contributing: Sequence[_Source]) -> Lineage | None:
        """DISTINCT as GROUP BY ALL over the same rows, so that the roots of equal rows come together."""
        tail = movable_tail(select)
        if tail is None:
            self._cut(select)
            return None
        select.set("distinct", None)
        _emit(select, contributing, len(contributing), grouping_of(select))
        self._collapse(select, tail)
        return Lineage(unique=True)

    def _collapse(self, query: exp.Query, tail: Mapping[str, exp.Expr]) -> None:
        """Replace `query`, which hands up lineage, by its distinct rows, each with all the roots of its copies."""
        clause = query.args.get("with_")
        query.set("with_", None)
        hidden = f'"{ROW_ID}", "{ROW_ROOTS}"'
        collected = _COLLECTED.format(f'"{ROW_ROOTS}"')
        inner = f'SELECT * EXCLUDE ({hidden}), {collected} AS "{ROW_ROOTS}" FROM __bq_place GROUP BY ALL'
        content = f'MD5(CAST(TO_JSON(__bq_content) AS VARCHAR)) AS "{ROW_ID}"'
        outer = parse_select(f"SELECT *, {content} FROM ({inner}) AS {self._name()}")
        for column in list(outer.find_all(exp.Column)):
            if column.name == "__bq_content":
                column.replace(exp.Var(this=f'STRUCT_PACK(*COLUMNS(* EXCLUDE ("{ROW_ROOTS}")))'))
        query.replace(outer)
        place = next(table for table in outer.find_all(exp.Table) if table.name == "__bq_place")
        place.replace(exp.Subquery(this=query, alias=exp.TableAlias(this=exp.to_identifier(self._name()))))
        if clause is not None:
            outer.set("with_", clause)
        for key, value in tail.items():
            outer.set(key, value)
        order_limit(outer, [column_named(None, ROW_ID)])

    def _set_operation(self, node: exp.SetOperation, ctes: _Ctes, emit: bool) -> Lineage | None:
        is_union = isinstance(node, exp.Union)
        emit = emit and is_union
        distinct = bool(node.args.get("distinct"))
        tail = movable_tail(node) if distinct and emit else {}
        if tail is None:
            emit = False
        branches = [self.query(branch, ctes, emit=emit) for branch in (node.left, node.right)]
        if not emit or not any(branches):
            self._cut(node)
            return None
        for lineage, branch in zip(branches, (node.left, node.right), strict=True):
            if lineage is None:
                self._pad(branch)
            else:
                self._last(branch)
        if distinct:
            node.set("distinct", False)
            self._collapse(node, tail or {})
            return Lineage(unique=True)
        order_limit(node, [column_named(None, ROW_ID), *ordinals(node)])
        return Lineage(unique=False)

    def _cut(self, query: exp.Query) -> None:
        """Complete the order of a LIMIT over rows without ids: by all columns, or or by the row behind a star."""
        positions = ordinals(query)
        if positions or not (query.args.get("limit") or query.args.get("offset")):
            order_limit(query, positions)
            return
        tail = movable_tail(query)
        if tail is None:
            return
        outer = self._wrap(query, "SELECT * FROM __bq_place")
        for key, value in tail.items():
            outer.set(key, value)
        order_limit(outer, [column_named(None, outer.args["from_"].this.alias)])

    def _pad(self, branch: exp.Expr) -> None:
        """Give a branch without lineage the two columns, empty, so that it fits beside one that has them."""
        empty = f'CAST(NULL AS VARCHAR) AS "{ROW_ID}", CAST([] AS VARCHAR[]) AS "{ROW_ROOTS}"'
        self._wrap(branch, f"SELECT *, {empty} FROM __bq_place")

    def _last(self, branch: exp.Expr) -> None:
        """Put the two columns of a branch last, in order: UNION ALL goes by position."""
        hidden = f'"{ROW_ID}", "{ROW_ROOTS}"'
        self._wrap(branch, f"SELECT * EXCLUDE ({hidden}), {hidden} FROM __bq_place")

    def _wrap(self, query: exp.Expr, template: str) -> exp.Select:
        """Put a query into the place that a template has for it; what stands there now."""
        outer = parse_select(template)
        query.replace(outer)
        inner = query.this if isinstance(query, exp.Subquery) and not query.args.get("limit") else query
        place = next(table for table in outer.find_all(exp.Table) if table.name == "__bq_place")
        place.replace(exp.Subquery(this=inner, alias=exp.TableAlias(this=exp.to_identifier(self._name()))))
        return outer

    def _source(self, part: exp.Expr, ctes: _Ctes, dark: bool) -> Iterator[_Source]:
        """The sources that one item of a FROM is: several for a join in parentheses."""
        holder = part.this if isinstance(part, exp.From | exp.Join) else part
        filters = isinstance(part, exp.Join) and part.kind in ("SEMI", "ANTI")
        if isinstance(holder, exp.Subquery) and isinstance(holder.this, exp.Table):
            dark = dark or bool(holder.alias) or bool(holder.args.get("pivots"))
            table = holder.this
            for inner in (table, *table.args.get("joins", ())):
                yield from self._source(inner, ctes, dark)
            return
        if isinstance(holder, exp.Table) and isinstance(holder.this, exp.Identifier):
            yield self._table(holder, ctes, dark, filters)
        elif isinstance(holder, exp.Subquery):
            dark = dark or bool(holder.args.get("pivots"))
            yield self._derived(holder, ctes, dark, filters)
        else:
            self._darken(holder, ctes)
            yield _Source(holder.alias_or_name, None, filters)

    def _table(self, table: exp.Table, ctes: _Ctes, dark: bool, filters: bool) -> _Source:
        dark = dark or bool(table.args.get("pivots"))
        name = self._tables.get(id(table))
        alias = table.alias or table.name
        if table.args.get("pivots"):
            alias = ""
        if name is None:
            lineage = ctes.get(table.name.lower())
            if lineage is not None and dark:
                self._strip(table, lineage)
                return _Source(alias, None, filters)
            return _Source(alias, lineage, filters)
        table.set("db", exp.to_identifier(PLAIN_SCHEMA if dark else ROW_SCHEMA))
        if not table.args.get("alias"):
            table.set("alias", exp.TableAlias(this=exp.to_identifier(name, quoted=True)))
        if dark:
            return _Source(alias, None, filters)
        return _Source(alias, Lineage(True, (ROW_ID, ROW_ROOTS, *self._shown.get(name, ()))), filters)

    def _derived(self, subquery: exp.Subquery, ctes: _Ctes, dark: bool, filters: bool) -> _Source:
        lineage = self.query(subquery.this, self._with(subquery, ctes), emit=not dark)
        if not subquery.alias:
            given = subquery.args.get("alias")
            name = exp.to_identifier(self._name())
            if given is None:
                subquery.set("alias", exp.TableAlias(this=name))
            else:
                given.set("this", name)
        return _Source(subquery.alias, lineage, filters)

    def _strip(self, table: exp.Table, lineage: Lineage) -> None:
        """A CTE without its lineage columns, for a place that would take them for the user's."""
        columns = ", ".join(f'"{name}"' for name in (ROW_ID, ROW_ROOTS))
        inner = parse_select(f"SELECT * EXCLUDE ({columns}) FROM __bq_place")
        place = next(iter(inner.find_all(exp.Table)))
        place.replace(exp.Table(this=table.this.copy()))
        alias = table.args.get("alias") or exp.TableAlias(this=table.this.copy())
        pivots = [pivot.copy() for pivot in table.args.get("pivots") or ()]
        table.replace(exp.Subquery(this=inner, alias=alias.copy(), pivots=pivots or None))

    def _darken(self, node: exp.Expr, ctes: _Ctes) -> None:
        """Make everything below `node` do without lineage."""
        for found in list(nearest(node, exp.Query)):
            if found is not node:
                self.query(found, ctes, emit=False)
        for table in list(nearest(node, exp.Table)):
            if isinstance(table, exp.Table) and isinstance(table.this, exp.Identifier):
                self._table(table, ctes, True, False)

    def _is_beyond_us(self, select: exp.Select) -> bool:
        """Whether more columns in the sources of a scope could change what it means."""
        if any(join.method == "NATURAL" for join in select.args.get("joins") or ()):
            return True
        aliases = {
            part.alias_or_name.lower() for part in select.find_all(exp.Table, exp.Subquery) if part.alias_or_name
        }
        for node in own_nodes(select):
            if isinstance(node, exp.Columns) and not isinstance(node.this, exp.Star):
                return True
            if isinstance(node, exp.Star) and not is_plain_star(node):
                return True
            if isinstance(node, exp.Column) and not node.table:
                name = node.name.lower()
                if name in aliases and name not in self._columns:
                    return True  # the whole row as a struct
        return False

    def _name(self) -> str:
        self._fresh += 1
        return f"__bq_{self._fresh}"


def _emit(select: exp.Select, sources: Sequence[_Source], parts: int, grouping: Grouping | None) -> Lineage:
    """Add the two columns to a SELECT; `parts` is the number of things in its FROM."""
    roots = _roots(sources)
    if grouping is None:
        filters = parts - len(sources)
        identity = _join_ids(sources)
        unique = (
            all(source.lineage and source.lineage.unique for source in sources) and not filters and not fans_out(select)
        )
    else:
        roots = parse_expression(_COLLECTED.format(roots.sql("duckdb")))
        identity, unique = _group_id(grouping), grouping.known
    if select.args.get("group") is not None and select.args["group"].args.get("all") and not unique:
        identity = parse_expression("CAST(NULL AS VARCHAR)")
    select.append("expressions", exp.alias_(identity, ROW_ID, quoted=True))
    select.append("expressions", exp.alias_(roots, ROW_ROOTS, quoted=True))
    return Lineage(unique)


def _group_id(grouping: Grouping) -> exp.Expr:
    if not grouping.known:
        return parse_expression("CAST(NULL AS VARCHAR)")
    if not grouping.keys:
        return parse_expression("MD5('one')")
    fields = ", ".join(f"'{number}': {key.sql('duckdb')}" for number, key in enumerate(grouping.keys))
    return parse_expression(f"MD5(CAST(TO_JSON({{{fields}}}) AS VARCHAR))")


def _join_ids(sources: Sequence[_Source]) -> exp.Expr:
    ids = [column_named(source.alias, ROW_ID) for source in sources]
    if len(ids) == 1:
        return ids[0]
    parts = " || ".join(f"COALESCE({part.sql('duckdb')}, '-')" for part in ids)
    return parse_expression(f"MD5({parts})")


def _roots(sources: Sequence[_Source]) -> exp.Expr:
    columns = [column_named(source.alias, ROW_ROOTS) for source in sources]
    if len(columns) == 1:
        return columns[0]
    lists = ", ".join(f"COALESCE({column.sql('duckdb')}, CAST([] AS VARCHAR[]))" for column in columns)
    return parse_expression(f"LIST_SORT(LIST_DISTINCT(FLATTEN([{lists}])))")


def _row_keys(sources: Sequence[_Source]) -> tuple[exp.Expr, ...]:
    """What tells the rows of a FROM apart: ids, and of a source that has none its whole row."""
    visible = [source for source in sources if not source.filters_only and source.alias]
    return tuple(
        column_named(source.alias, ROW_ID) if source.lineage else column_named(None, source.alias) for source in visible
    )


def _hide(select: exp.Select, sources: Sequence[_Source]) -> None:
    """Keep the sources' lineage out of the scope's stars."""
    hidden = {source.alias.lower(): source.lineage.hidden for source in sources if source.lineage}
    everything = tuple(dict.fromkeys(name for names in hidden.values() for name in names))
    for node in list(own_nodes(select)):
        if isinstance(node, exp.Star) and is_plain_star(node) and not isinstance(node.parent, exp.Count):
            holder = node.parent
            names = everything
            if isinstance(holder, exp.Column) and holder.table:
                names = hidden.get(holder.table.lower(), ())
            if names:
                given = node.args.get("except_") or []
                node.set("except_", [*given, *(column_named(None, name) for name in names)])


def _exact_columns(schemas: Schemas) -> Callable[[exp.Column], bool]:
    """Which columns are integers or decimals wherever their name occurs in an input."""
    types: dict[str, set[str]] = {}
    for columns in schemas.values():
        for column in columns or ():
            types.setdefault(column.name.lower(), set()).add(column.type)
    all_known = all(columns is not None for columns in schemas.values())
    exact = {
        name
        for name, kinds in types.items()
        if all(kind.endswith("int") or kind == "integer" or kind.startswith(("decimal", "bool")) for kind in kinds)
    }

    def is_exact(column: exp.Column) -> bool:
        return all_known and column.name.lower() in exact and not _is_alias(column)

    return is_exact


def _is_alias(column: exp.Column) -> bool:
    """Whether anything in the whole query is given the name of the column: then its type is not known here."""
    name = column.name.lower()
    return any(alias.alias.lower() == name for alias in column.root().find_all(exp.Alias, exp.PropertyEQ)) or any(
        part.name.lower() == name for given in column.root().find_all(exp.TableAlias) for part in given.columns
    )


def hide_shown(tree: exp.Expr, tables: Mapping[int, str], shown: Mapping[str, tuple[str, ...]]) -> None:
    """Keep the columns of `shown` out of the stars of a query that is otherwise left as it is written."""
    for select in tree.find_all(exp.Select):
        parts = [part.this if isinstance(part, exp.From | exp.Join) else part for part in from_parts(select)]
        inputs = [(part, shown.get(tables.get(id(part), ""), ())) for part in parts]
        _hide(select, [_Source(part.alias_or_name, Lineage(True, names)) for part, names in inputs if names])


def shown_columns(schemas: Schemas, mentioned: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Of each input, which of bqbuild's own columns the query may see, since it names them."""
    return {
        name: tuple(
            column.name
            for column in columns or ()
            if column.name in LINEAGE_COLUMNS and column.name != ROOTS and column.name in mentioned
        )
        for name, columns in schemas.items()
    }
