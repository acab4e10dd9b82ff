"""The graph and its columns as a document: what `lineage` prints and lineage.json holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from bqbuild.core.errors import UsageError, did_you_mean
from bqbuild.core.records import ID, Node, NodeName
from bqbuild.graph.lineage import Lineage, column_lineage
from bqbuild.run.session import Session
from bqbuild.run.state import State


class ColumnGraph:
    """The columns of every node and what each is made from: from declarations, and for what is known only once a
    node is built, from its table."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._state = State(session, pointers=session.pointers())
        self._lineage: dict[NodeName, Lineage | None] = {}

    def columns(self, name: str) -> list[str] | None:
        """The user's columns of a node or side table; None where it is neither declared nor built."""
        node, side = self._split(name)
        known = self._session.columns.get(node) if not side else None
        if known is not None:
            return [column for column in known if column != ID]
        output = self._state.output(node)
        return list(output.tables[side].user_columns) if output is not None and side in output.tables else None

    def lineage(self, name: NodeName) -> Lineage | None:
        """The origins of the node's columns; None where they cannot be told."""
        if name not in self._lineage:
            self._lineage[name] = column_lineage(self._session.node(name), self._session.project, self.columns)
        return self._lineage[name]

    def above(self, name: NodeName, column: str) -> list[dict[str, Any]]:
        """Every edge on the way from a column up to the sources, as `from`, `to` and `via`; nearest first.

        Raises UsageError for a column that the node does not have.
        """
        self._check(name, column)
        edges: list[dict[str, Any]] = []
        waiting, seen = [(str(name), column)], set()
        while waiting:
            here = waiting.pop(0)
            if here in seen:
                continue
            seen.add(here)
            for origin in (self._of(here[0]) or {}).get(here[1], ()):
                edges.append(_edge((origin.parent, origin.column), here, origin.via))
                waiting.append((origin.parent, origin.column))
        return edges

    def below(self, name: NodeName, column: str) -> list[dict[str, Any]]:
        """Every edge on the way from a column down to all that is made from it. Raises UsageError as `above`."""
        self._check(name, column)
        reached = {(str(name), column)}
        edges: list[dict[str, Any]] = []
        for child in self._session.dag.sort(self._session.dag.descendants(name)):
            for made, origins in (self.lineage(child) or {}).items():
                found = [origin for origin in origins if self._main(origin.parent, origin.column) in reached]
                edges += [_edge((origin.parent, origin.column), (str(child), made), origin.via) for origin in found]
                if found:
                    reached.add((str(child), made))
        return edges

    def _of(self, name: str) -> Lineage | None:
        """Of a side table: its rows are the node's input, its columns that are known come from there."""
        node, side = self._split(name)
        if not side:
            return self.lineage(node)
        own = self.lineage(node) or {}
        return {column: own.get(column, ()) for column in self.columns(name) or ()}

    def _main(self, name: str, column: str) -> tuple[str, str]:
        return str(self._split(name)[0]), column

    def _split(self, name: str) -> tuple[NodeName, str]:
        if NodeName(name) in self._session.project.nodes:
            return NodeName(name), ""
        node, _, side = name.rpartition("__")
        return NodeName(node), side

    def _check(self, name: NodeName, column: str) -> None:
        known = self.columns(str(name))
        if known is None:
            raise UsageError(f"the columns of `{name}` are not known yet", hint=f"bqbuild run --select +{name}")
        if column not in known:
            hint = did_you_mean(column, known) or f"it has {', '.join(known)}"
            raise UsageError(f"`{name}` has no column `{column}`", hint=hint)


def graph_json(session: Session, names: Collection[NodeName], columns: ColumnGraph) -> dict[str, Any]:
    """Nodes with their columns' origins, and the edges between them."""
    order = session.dag.sort(names)
    return {
        "nodes": [_node(session.node(name), columns) for name in order],
        "edges": [{"from": str(ref.node), "to": str(name), "side": ref.side} for name, ref in _edges(session, order)],
    }


def _node(node: Node, columns: ColumnGraph) -> dict[str, Any]:
    lineage = columns.lineage(node.name)
    known = columns.columns(str(node.name))
    return {
        "name": node.name,
        "kind": node.kind,
        "path": node.path,
        "columns": None
        if known is None
        else [
            {
                "name": column,
                "from": None
                if lineage is None
                else [
                    {"model": origin.parent, "column": origin.column, "via": origin.via}
                    for origin in lineage.get(column, ())
                ],
            }
            for column in known
        ],
    }


def _edges(session: Session, order: Iterable[NodeName]) -> list[tuple[NodeName, Any]]:
    inside = set(order)
    return [(name, ref) for name in order for ref in session.node(name).refs if ref.node in inside]


def _edge(origin: tuple[str, str], made: tuple[str, str], via: str) -> dict[str, Any]:
    return {
        "from": {"model": origin[0], "column": origin[1]},
        "to": {"model": made[0], "column": made[1]},
        "via": via,
    }
