"""The graph of nodes: parents, children, a stable order, and cycles shown as a path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bqbuild.core.errors import ProjectError
from bqbuild.core.findings import Findings
from bqbuild.core.records import Node, NodeName

Neighbours = Mapping[NodeName, tuple[NodeName, ...]]


@dataclass(frozen=True, slots=True)
class Dag:
    """Who reads whom. `order` is topological, and by name wherever the graph leaves a choice."""

    order: tuple[NodeName, ...]
    parents: Neighbours
    children: Neighbours

    def ancestors(self, name: NodeName, depth: int | None = None) -> frozenset[NodeName]:
        """All nodes above `name`, or those at most `depth` edges away; never `name` itself."""
        return _reach(self.parents, name, depth)

    def descendants(self, name: NodeName, depth: int | None = None) -> frozenset[NodeName]:
        """All nodes below `name`, or those at most `depth` edges away; never `name` itself."""
        return _reach(self.children, name, depth)

    def sort(self, names: Iterable[NodeName]) -> tuple[NodeName, ...]:
        """The given names in the order of the graph."""
        wanted = set(names)
        return tuple(name for name in self.order if name in wanted)


def build_dag(nodes: Mapping[NodeName, Node], findings: Findings | None = None) -> Dag:
    """The graph of `nodes`. Raises ProjectError for a cycle; refs to nodes that are not there are left out."""
    read = {name: sorted({ref.node for ref in node.refs if ref.node in nodes}) for name, node in nodes.items()}
    order = (findings or Findings()).find("graph: order", read, lambda: _sorted(nodes))
    return ordered_dag([NodeName(name) for name in order], nodes)


def _sorted(nodes: Mapping[NodeName, Node]) -> list[NodeName]:
    # a project that was read before comes with its order, and does not wait for this import
    import networkx as nx

    graph: nx.DiGraph[NodeName] = nx.DiGraph()
    graph.add_nodes_from(sorted(nodes))
    graph.add_edges_from((ref.node, name) for name in sorted(nodes) for ref in nodes[name].refs if ref.node in nodes)
    try:
        return list(nx.lexicographical_topological_sort(graph))
    except nx.NetworkXUnfeasible:
        raise _cycle_error(nodes, [edge[0] for edge in nx.find_cycle(graph)]) from None


def ordered_dag(order: Sequence[NodeName], nodes: Mapping[NodeName, Node]) -> Dag:
    """The graph of nodes whose topological order is known."""
    parents = {name: tuple(sorted({ref.node for ref in nodes[name].refs if ref.node in nodes})) for name in nodes}
    below: dict[NodeName, list[NodeName]] = {name: [] for name in nodes}
    for name in sorted(nodes):
        for parent in parents[name]:
            below[parent].append(name)
    return Dag(tuple(order), parents, {name: tuple(found) for name, found in below.items()})


def _cycle_error(nodes: Mapping[NodeName, Node], cycle: Sequence[NodeName]) -> ProjectError:
    """The cycle as a path in the direction of the data, from its first node by name."""
    first = cycle.index(min(cycle))
    path = [*cycle[first:], *cycle[:first], cycle[first]]
    files = ", ".join(f"{name} in {nodes[name].path}" for name in dict.fromkeys(path))
    return ProjectError(
        f"models depend on each other in a circle: {' → '.join(path)}",
        where=nodes[path[0]].where,
        hint=f"remove one of the references ({files})",
    )


def _reach(neighbours: Neighbours, start: NodeName, depth: int | None) -> frozenset[NodeName]:
    found: set[NodeName] = set()
    edge = {start}
    while edge and (depth is None or depth > 0):
        edge = {name for here in edge for name in neighbours[here]} - found
        found |= edge
        depth = None if depth is None else depth - 1
    return frozenset(found - {start})
