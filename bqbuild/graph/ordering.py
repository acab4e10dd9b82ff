"""An ORDER BY in YAML (`keep`): that it orders the rows by themselves and by nothing else, and its form that counts.

Pure.
"""

from __future__ import annotations

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from bqbuild.core.errors import ProjectError, Where
from bqbuild.graph.sql.identity import readable_identity
from bqbuild.graph.sql.safety import check_expression


def check_order(text: str, where: Where | None = None) -> str:
    """The normal form of an ORDER BY over one row. Raises ProjectError for what is none, and for clocks and chance."""
    try:
        tree = sqlglot.parse_one(f"SELECT 1 ORDER BY {text}", read="duckdb")
    except SqlglotError as error:
        reason = str(error).splitlines()[0].split(". Line")[0]
        raise ProjectError(f"`{text}` is not an ORDER BY: {reason}", where=where) from error
    given = {key for key, value in tree.args.items() if value}
    if not isinstance(tree, exp.Select) or given != {"expressions", "order"} or tree.find(exp.Subquery):
        raise ProjectError(f"`{text}` is not an ORDER BY", where=where, hint="write columns, like `score DESC, id`")
    check_expression(tree.args["order"], where)
    return readable_identity(tree.args["order"]).removeprefix("ORDER BY ")
