"""A SQL model as the rest of bqbuild sees it: what it is, what it reads and gives, and what DuckDB is to run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlglot import exp

from bqbuild.core.errors import Where
from bqbuild.core.records import LINEAGE_COLUMNS, ROOTS, Column, Node
from bqbuild.graph.sql.identity import sql_identity
from bqbuild.graph.sql.ids import ROW_ID, ROW_ROOTS, Compiler, hide_shown, shown_columns
from bqbuild.graph.sql.parsing import base_tables, body_place, parse_query, without_semicolon
from bqbuild.graph.sql.reads import columns_given, columns_read
from bqbuild.graph.sql.safety import check_query

Schemas = Mapping[str, Sequence[Column] | None]
"""The columns of each input by `str(ref)`; None where they are not known."""


@dataclass(frozen=True, slots=True)
class CompiledSql:
    """A query that also gives `__bq_id` and `__bq_roots`, as its last two columns, where `has_lineage`; `written` is
    the user's own, over inputs under their own names.

    `sql` reads each input as `bq_rows."name"` (the user's columns, those of `shown`, `__bq_id`, `__bq_roots`) or as
    `bq_plain."name"` (the user's columns alone). Where not `unique`, rows that share an id must be numbered.
    """

    sql: str
    written: str
    has_lineage: bool
    unique: bool
    shown: Mapping[str, tuple[str, ...]]


class SqlModel:
    """One analysed query. Made by `analyse_sql`; everything costly is found when it is first asked for."""

    def __init__(self, tree: exp.Expr, body: str) -> None:
        self._tree = tree
        self._body = body

    @cached_property
    def identity(self) -> str:
        """The canonical text of the query: equal for queries that differ in form alone."""
        return sql_identity(self._tree)

    @cached_property
    def tables(self) -> tuple[str, ...]:
        """The inputs that the query names, in the order in which it does."""
        return tuple(dict.fromkeys(self._names.values()))

    @cached_property
    def mentioned(self) -> frozenset[str]:
        """Which of bqbuild's own columns the query names."""
        own = {name for name in LINEAGE_COLUMNS if name != ROOTS}
        return frozenset(column.name for column in self._tree.find_all(exp.Column) if column.name in own)

    def reads(self, schemas: Schemas) -> dict[str, frozenset[str] | None]:
        """The columns read of each input; None: all of them, or not to be told."""
        read = columns_read(self._tree, self._names, schemas)
        own = set(LINEAGE_COLUMNS)
        return {name: None if columns is None else columns - own for name, columns in read.items()}

    def output_columns(self, schemas: Schemas) -> list[str] | None:
        """The names of the columns that the query gives; None where they can't be told without running it."""
        return columns_given(self._tree, self._names, schemas)

    def compile(self, schemas: Schemas) -> CompiledSql:
        """The query with row ids and roots; `schemas` are those of the inputs' tables, lineage columns included."""
        holder, names = self._copy()
        shown = shown_columns(schemas, self.mentioned)
        written = self._written(shown)
        try:
            lineage = Compiler(names, schemas, shown).query(holder.this, {}, emit=True)
            sql = holder.this.sql(dialect="duckdb", comments=False)
        except RecursionError:  # hundreds of UNIONs, say, that a loop of Jinja made
            return CompiledSql(written, written, has_lineage=False, unique=False, shown=shown)
        if lineage is None:
            return CompiledSql(sql, written, has_lineage=False, unique=False, shown=shown)
        hidden = f'"{ROW_ID}", "{ROW_ROOTS}"'
        ordered = f"SELECT * EXCLUDE ({hidden}), {hidden} FROM ({sql}) AS __bq"
        return CompiledSql(ordered, written, has_lineage=True, unique=lineage.unique, shown=shown)

    def _written(self, shown: Mapping[str, tuple[str, ...]]) -> str:
        """The user's text; only where it names bqbuild's own columns, and stars must not, it is written anew."""
        if not any(shown.values()):
            return without_semicolon(self._body)
        holder, names = self._copy()
        hide_shown(holder, names, shown)
        return holder.this.sql(dialect="duckdb", comments=False)  # type: ignore[no-any-return]  # `this` is untyped

    def _copy(self) -> tuple[exp.Subquery, dict[int, str]]:
        """A copy of the tree, with a parent, and the names of the inputs by the id() of their nodes in it."""
        holder = exp.Subquery(this=self._tree.copy())
        pairs = zip(self._tree.find_all(exp.Table), holder.find_all(exp.Table), strict=True)
        return holder, {id(table): self._names[id(node)] for node, table in pairs if id(node) in self._names}

    @cached_property
    def _names(self) -> dict[int, str]:
        return {id(table): table.name for table in base_tables(self._tree)}


def analyse_sql(body: str, where: Where, *, volatile: bool = False, refs: Collection[str] | None = None) -> SqlModel:
    """Parse the SQL of a model, after Jinja, and check that it is a function of its inputs.

    `refs` are the inputs it may name (`str(ref)`); None leaves that unchecked. Raises ProjectError, with the line in
    `where.file`, for what does not parse, is not one SELECT, or is not allowed.
    """
    tree = parse_query(body, where)
    check_query(tree, where, volatile=volatile, refs=refs)
    return SqlModel(tree, body)


def analyse_node(node: Node) -> SqlModel:
    """The SQL of a node, which may read what it refers to and nothing else. Raises ProjectError."""
    refs = [str(ref) for ref in node.refs]
    return analyse_sql(node.body, body_place(node), volatile=node.spec.volatile, refs=refs)
