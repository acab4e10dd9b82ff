"""Which input columns each column of a query is made from. WHERE, JOIN and ORDER BY decide about rows, not values:
their columns are not among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import Scope, traverse_scope

from bqbuild.core.errors import Where
from bqbuild.core.records import Column
from bqbuild.graph.sql.parsing import base_tables, parse_query
from bqbuild.graph.sql.reads import (  # one reading of SQL for both
    NotUnderstoodError,
    input_table,
    qualified_query,
    source_of,
)

Schemas = Mapping[str, Sequence[Column] | None]
Origins = frozenset[tuple[str, str]]
"""Pairs of an input and one of its columns."""


def column_origins(body: str, where: Where, schemas: Schemas) -> dict[str, Origins] | None:
    """The origins of each column that the query gives, in order; None where they cannot be told.

    `body` and `schemas` are as for `analyse_sql`. Raises ProjectError where the SQL does not parse.
    """
    tree = parse_query(body, where)
    names = {id(table): table.name for table in base_tables(tree)}
    try:
        query = qualified_query(tree, names, schemas)
        return _Tracer(query, set(names.values())).outputs()
    except (NotUnderstoodError, SqlglotError, RecursionError, KeyError):
        return None


class _Tracer:
    """Follows columns from the result down to the inputs; each column of each scope once."""

    def __init__(self, query: exp.Query, inputs: set[str]) -> None:
        self._scopes = list(traverse_scope(query))
        if not self._scopes:
            raise NotUnderstoodError
        self._inputs = {input_table(name).lower(): name for name in inputs}
        self._owners: dict[int, Scope] = {}
        for scope in self._scopes:  # the innermost come first, and they own their columns
            for column in scope.columns:
                self._owners.setdefault(id(column), scope)
        self._known: dict[tuple[int, int], Origins] = {}

    def outputs(self) -> dict[str, Origins]:
        """All columns of the outermost query."""
        root = self._scopes[-1]
        found: dict[str, Origins] = {}
        for position, item in enumerate(_selects(root)):
            if item.is_star or not item.alias_or_name:
                raise NotUnderstoodError
            found[item.alias_or_name] = self._column(root, position)
        return found

    def _column(self, scope: Scope, position: int) -> Origins:
        key = (id(scope), position)
        if key not in self._known:
            self._known[key] = frozenset()  # a query that reads itself adds nothing to itself
            self._known[key] = frozenset(self._trace(scope, position))
        return self._known[key]

    def _trace(self, scope: Scope, position: int) -> Iterator[tuple[str, str]]:
        if isinstance(scope.expression, exp.SetOperation):
            for branch in scope.set_operation_scopes:
                yield from self._column(branch, position)
            return
        items = _selects(scope)
        if position >= len(items):
            raise NotUnderstoodError
        yield from self._expression(items[position])

    def _expression(self, expression: exp.Expr) -> Iterator[tuple[str, str]]:
        for column in expression.find_all(exp.Column):
            owner = self._owners.get(id(column))
            source = source_of(owner, column) if owner is not None else None
            if isinstance(source, exp.Table):
                name = self._inputs.get(source.name.lower())
                if name is not None:
                    yield name, column.name
            elif isinstance(source, Scope):
                yield from self._from_scope(source, column.name)
            else:
                raise NotUnderstoodError

    def _from_scope(self, scope: Scope, name: str) -> Iterator[tuple[str, str]]:
        if scope.is_udtf:  # what is unnested is made from everything in the call
            yield from self._expression(scope.expression)
            return
        names = [item.alias_or_name.lower() for item in _selects(scope)]
        if name.lower() not in names:
            raise NotUnderstoodError
        yield from self._column(scope, names.index(name.lower()))


def _selects(scope: Scope) -> list[exp.Expr]:
    return list(getattr(scope.expression, "selects", ()))
