"""Which columns of each input a query reads, and which columns it gives (rule C3).

Only what can reach the result counts: a column that a CTE selects and nobody uses is not read. Where a construct is
not understood the answer is None, all columns: reading too much costs a rebuild, reading too little would be stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, traverse_scope

from bqbuild.core.records import LINEAGE_COLUMNS, Column

Schemas = Mapping[str, Sequence[Column] | None]

MAX_NODES = 8000
"""Larger queries, which only programs write, are not followed: it would take minutes."""


class NotUnderstoodError(Exception):
    """The query has something in it that this module can't follow; caught below."""


def columns_read(tree: exp.Expr, names: Mapping[int, str], schemas: Schemas) -> dict[str, frozenset[str] | None]:
    """The columns read of each input; `names` maps the id() of each input's Table node in `tree` to its name."""
    inputs = dict.fromkeys(names.values())
    try:
        qualified = qualified_query(tree, names, schemas)
        found = _Reader(qualified, set(inputs)).read()
    except (NotUnderstoodError, SqlglotError, RecursionError, KeyError):
        return dict(inputs)
    return {name: _as_spelt(found.get(name, set()), schemas.get(name)) for name in inputs}


def columns_given(tree: exp.Expr, names: Mapping[int, str], schemas: Schemas) -> list[str] | None:
    """The names of a query's columns, or None where they can't be told."""
    try:
        qualified = qualified_query(tree, names, schemas)
    except (NotUnderstoodError, SqlglotError, RecursionError, KeyError):
        return None
    spelling = {column.name.lower(): column.name for columns in schemas.values() for column in columns or ()}
    written = {alias.alias.lower(): alias.alias for alias in tree.find_all(exp.Alias)}
    columns = []
    for item in qualified.selects:
        if item.is_star or isinstance(item, exp.Columns) or not item.alias_or_name:
            return None
        name = item.alias_or_name
        if name.startswith("_col_"):
            return None  # an expression without a name: DuckDB makes one of its text
        columns.append(written.get(name, spelling.get(name, name)))
    return columns


def qualified_query(tree: exp.Expr, names: Mapping[int, str], schemas: Schemas) -> exp.Query:
    """A copy with stars expanded and every column under its table's alias; inputs are tables named `bq_in_<name>`."""
    if sum(not isinstance(node, exp.Literal) for node in tree.walk()) > MAX_NODES:
        raise NotUnderstoodError
    if tree.find(exp.Pivot, exp.Columns, exp.PositionalColumn, exp.Summarize) is not None:
        raise NotUnderstoodError
    if any(clause.args.get("recursive") for clause in tree.find_all(exp.With)):
        raise NotUnderstoodError
    if any(join.method == "NATURAL" for join in tree.find_all(exp.Join)):
        raise NotUnderstoodError
    copy = _with_inputs(tree, names)
    known: dict[str, object] = {
        input_table(name): {column.name: column.type for column in columns if column.name not in LINEAGE_COLUMNS}
        for name, columns in schemas.items()
        if columns is not None
    }
    _check_whole_rows(copy)
    qualified = qualify(
        copy,
        schema=known,
        dialect="duckdb",
        validate_qualify_columns=False,
        quote_identifiers=False,
        identify=False,
    )
    if not isinstance(qualified, exp.Query):
        raise NotUnderstoodError
    return qualified


def _with_inputs(tree: exp.Expr, names: Mapping[int, str]) -> exp.Expr:
    """A copy of the tree in which inputs can't be confused with CTEs."""
    copy = tree.copy()
    for original, table in zip(tree.find_all(exp.Table), copy.find_all(exp.Table), strict=True):
        name = names.get(id(original))
        if name is not None:
            if not table.args.get("alias"):
                table.set("alias", exp.TableAlias(this=exp.to_identifier(name, quoted=True)))
            table.set("this", exp.to_identifier(input_table(name), quoted=True))
    for column in list(copy.find_all(exp.Column)):
        if column.name in LINEAGE_COLUMNS:  # no schema has them: read or not, they are no columns of the user's
            null = exp.Null()
            column.replace(exp.alias_(null, column.name) if isinstance(column.parent, exp.Select) else null)
    return copy


def _check_whole_rows(tree: exp.Expr) -> None:
    """A table named where a value belongs is the whole row: not followed."""
    aliases = {
        source.alias_or_name.lower() for source in tree.find_all(exp.Table, exp.Subquery) if source.alias_or_name
    }
    aliases |= {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    columns = {alias.alias.lower() for alias in tree.find_all(exp.Alias)}
    for column in tree.find_all(exp.Column):
        if not column.table and column.name.lower() in aliases - columns:
            raise NotUnderstoodError


class _Reader:
    """Follows needed columns from the result down to the inputs."""

    def __init__(self, query: exp.Query, inputs: Iterable[str]) -> None:
        self._scopes = list(traverse_scope(query))
        self._inputs = {input_table(name).lower(): name for name in inputs}
        self._needed: dict[int, set[str] | None] = {}
        self._found: dict[str, set[str]] = {}

    def read(self) -> dict[str, set[str]]:
        """Scopes come innermost first; going backwards, everyone who needs a scope was looked at before it."""
        if not self._scopes:
            raise NotUnderstoodError
        self._needed[id(self._scopes[-1])] = None
        for scope in reversed(self._scopes):
            if id(scope) in self._needed:
                self._scope(scope)
            elif scope.is_subquery or scope.is_udtf:
                self._needed[id(scope)] = None
                self._scope(scope)
        return self._found

    def _scope(self, scope: Scope) -> None:
        query = scope.expression
        needed = self._needed[id(scope)]
        if isinstance(query, exp.SetOperation):
            for branch in scope.set_operation_scopes:
                self._need(branch, None)
            return
        if isinstance(query, exp.Select) and needed is not None and _gives_rows_of_columns(query):
            needed = None
        for column in self._columns(scope, needed):
            self._column(scope, column)
        for source in scope.sources.values():
            if isinstance(source, Scope):
                self._need(source, set() if isinstance(query, exp.Select) else None)

    def _columns(self, scope: Scope, needed: set[str] | None) -> list[exp.Column]:
        """The columns that the scope's expressions name, without those of projections that nobody needs."""
        query = scope.expression
        unused: set[int] = set()
        if isinstance(query, exp.Select) and needed is not None:
            needed = needed | _named_by_alias(query)
            for item in query.selects:
                if item.alias_or_name.lower() not in needed and not _makes_rows(item):
                    unused |= {id(column) for column in item.find_all(exp.Column)}
        if any(isinstance(item, exp.Star) or item.is_star for item in getattr(query, "selects", ())):
            raise NotUnderstoodError
        return [column for column in scope.columns if id(column) not in unused]

    def _column(self, scope: Scope, column: exp.Column) -> None:
        source = source_of(scope, column)
        if isinstance(source, Scope):
            self._need(source, {column.name.lower()})
        elif isinstance(source, exp.Table):
            name = self._inputs.get(source.name.lower())
            if name is not None:
                self._found.setdefault(name, set()).add(column.name.lower())
        else:
            raise NotUnderstoodError

    def _need(self, scope: Scope, columns: set[str] | None) -> None:
        known = self._needed.get(id(scope), set())
        self._needed[id(scope)] = None if known is None or columns is None else known | columns


def source_of(scope: Scope, column: exp.Column) -> object:
    """What a column's table alias stands for, here or in a scope around; None where it is nowhere."""
    if not column.table:
        return None
    inside: Scope | None = scope
    while inside is not None:
        source = inside.sources.get(column.table)
        if source is not None:
            return source
        inside = inside.parent
    return None


def _gives_rows_of_columns(select: exp.Select) -> bool:
    """Whether which rows there are depends on what is selected: then all of it is read."""
    group, order = select.args.get("group"), select.args.get("order")
    by_all = any(isinstance(item.this, exp.Var | exp.Literal) for item in order.expressions) if order else False
    return bool(select.args.get("distinct")) or bool(group and group.args.get("all")) or by_all


def _named_by_alias(select: exp.Select) -> set[str]:
    """The projections that decide which rows there are, under their own names: ORDER BY, HAVING and QUALIFY may name
    what the list of the SELECT gives."""
    clauses = [select.args.get(key) for key in ("order", "having", "qualify", "group", "distinct")]
    columns = [column for clause in clauses if clause is not None for column in clause.find_all(exp.Column)]
    return {column.name.lower() for column in columns if not column.table}


def _makes_rows(item: exp.Expr) -> bool:
    return item.find(exp.Unnest, exp.Explode) is not None


def _as_spelt(names: set[str], columns: Sequence[Column] | None) -> frozenset[str] | None:
    """Names as the input spells them; SQL does not mind the case, the store does. None where the input lacks one of
    them: then this module, or the user, is mistaken, and DuckDB will say so better."""
    if columns is None:
        return frozenset(names)
    spelling = {column.name.lower(): column.name for column in columns}
    own = {name.lower() for name in LINEAGE_COLUMNS}
    if not names <= spelling.keys() | own:
        return None
    return frozenset(spelling.get(name, name) for name in names)


def input_table(name: str) -> str:
    return f"bq_in_{name}"
