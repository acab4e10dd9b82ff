"""The form of a query that counts: what is left of it when formatting is taken away (rule C2)."""

from __future__ import annotations

import re

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB

from bqbuild.graph.sql.functions import WITHOUT_PARENTHESES


def sql_identity(tree: exp.Expr) -> str:
    """Canonical SQL text of a query: comments, spacing, case of keywords and functions, quotes around names, needless
    parentheses and the order of operands of AND and OR don't show in it."""
    return _text(_normal(tree))


def readable_identity(tree: exp.Expr) -> str:
    """The same for a part of a query that is shown to people: names are in quotes only where they need them."""
    normal = _normal(tree)
    for name in normal.find_all(exp.Identifier):
        name.set("quoted", not _is_plain(name.name))
    return DuckDB().generate(normal, copy=False, comments=False, normalize_functions="lower", pretty=False)


def _normal(tree: exp.Expr) -> exp.Expr:
    normal = tree.copy()
    for paren in list(normal.find_all(exp.Paren)):
        if _is_needless(paren):
            paren.replace(paren.this)
    for node in normal.walk():
        if isinstance(node, exp.Join):
            _write_join_briefly(node)
        elif isinstance(node, exp.Ordered) and node.args.get("desc") is False:
            node.set("desc", None)
    for chain in list(normal.find_all(exp.And, exp.Or)):
        if type(chain.parent) is not type(chain):
            _sort_operands(chain)
    return normal


def _is_plain(name: str) -> bool:
    """Whether a name means the same without quotes, as far as this release of DuckDB's grammar is known."""
    is_word = name.upper() in DuckDB.Tokenizer.KEYWORDS or name.lower() in WITHOUT_PARENTHESES
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None and not is_word


def _text(tree: exp.Expr) -> str:
    return DuckDB().generate(tree, copy=True, comments=False, identify=True, normalize_functions="upper", pretty=False)


def _is_needless(paren: exp.Paren) -> bool:
    """Whether what stands in parentheses can't be torn apart by what is around it."""
    atoms = (exp.Column, exp.Literal, exp.Func, exp.Paren, exp.Cast, exp.Null, exp.Boolean)
    inside = isinstance(paren.this, atoms) and not isinstance(paren.this, exp.Binary)
    around = isinstance(
        paren.parent, exp.Alias | exp.Where | exp.Having | exp.Qualify | exp.Select | exp.Join | exp.Ordered
    )
    same = isinstance(paren.this, exp.And | exp.Or) and type(paren.this) is type(paren.parent)
    term = isinstance(paren.this, exp.Predicate) and isinstance(paren.parent, exp.And | exp.Or)
    # `(l)[1]` and `(s).x` need theirs: dots and brackets bind tighter than calls do
    return around or same or term or (inside and not isinstance(paren.parent, exp.Dot | exp.Bracket))


def _write_join_briefly(join: exp.Join) -> None:
    """INNER and OUTER say what is so without them."""
    if join.kind == "INNER" or (join.kind == "OUTER" and join.side):
        join.set("kind", None)


def _sort_operands(chain: exp.Connector) -> None:
    operands = [operand.copy() for operand in chain.flatten(unnest=False)]
    operands.sort(key=_text)
    joined = operands[0]
    for operand in operands[1:]:
        joined = type(chain)(this=joined, expression=operand)
    chain.replace(joined)
