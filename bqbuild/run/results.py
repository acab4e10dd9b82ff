"""How a node ended, as a value for listeners and artifacts."""

from __future__ import annotations

from collections.abc import Mapping

from bqbuild.core.events import Counts, NodeResult
from bqbuild.core.records import Node, Table


def node_result(
    node: Node, status: str, reason: str, tables: Mapping[str, Table], *, counts: Counts, seconds: float
) -> NodeResult:
    """The result of a node that has these tables by side; none where it has failed."""
    return NodeResult(
        name=node.name,
        kind=node.kind,
        status=status,
        reason=reason,
        counts=counts,
        seconds=seconds,
        table=tables[""].digest if "" in tables else None,
        sides={side: table.rows for side, table in tables.items() if side},
    )
