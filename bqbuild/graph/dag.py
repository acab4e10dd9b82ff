"""The graph of nodes: parents, children, a stable order, and cycles shown as a path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import networkx as nx

from bqbuild.core.errors import ProjectError
from bqbuild.core.records import Node, NodeName


@dataclass(frozen=True, slots=True)
class Dag:
    """Who reads whom. `order` is topological, and by name wherever the graph leaves a choice."""

    order: tuple[NodeName, ...]
    parents: Mapping[NodeName, tuple[NodeName, ...]]
    children: Mapping[NodeName, tuple[NodeName, ...]]
    _graph: nx.DiGraph[NodeName] = field(repr=False, compare=False)

    def ancestors(self, name: NodeName, depth: int | None = None) -> frozenset[NodeName]:
        """All nodes above `name`, or those at most `depth` edges away; never `name` itself."""
        return _reach(self._graph.reverse(copy=False), name, depth)

    def descendants(self, name: NodeName, depth: int | None = None) -> frozenset[NodeName]:
        """All nodes below `name`, or those at most `depth` edges away; never `name` itself."""
        return _reach(self._graph, name, depth)

    def sort(self, names: Iterable[NodeName]) -> tuple[NodeName, ...]:
        """The given names in the order of the graph."""
        wanted = set(names)
        return tuple(name for name in self.order if name in wanted)


def build_dag(nodes: Mapping[NodeName, Node]) -> Dag:
    """The graph of `nodes`. Raises ProjectError for a cycle; refs to nodes that are not there are left out."""
    graph: nx.DiGraph[NodeName] = nx.DiGraph()
    graph.add_nodes_from(sorted(nodes))
    graph.add_edges_from((ref.node, name) for name in sorted(nodes) for ref in nodes[name].refs if ref.node in nodes)
    try:
        order = tuple(nx.lexicographical_topological_sort(graph))
    except nx.NetworkXUnfeasible:
        raise _cycle_error(nodes, [edge[0] for edge in nx.find_cycle(graph)]) from None
    return Dag(
        order=order,
        parents={name: tuple(sorted(graph.predecessors(name))) for name in nodes},
        children={name: tuple(sorted(graph.successors(name))) for name in nodes},
        _graph=graph,
    )


def _cycle_error(nodes: Mapping[NodeName, Node], cycle: list[NodeName]) -> ProjectError:
    """The cycle as a path in the direction of the data, from its first node by name."""
    first = cycle.index(min(cycle))
    path = [*cycle[first:], *cycle[:first], cycle[first]]
    files = ", ".join(f"{name} in {nodes[name].path}" for name in dict.fromkeys(path))
    return ProjectError(
        f"models depend on each other in a circle: {' → '.join(path)}",
        where=nodes[path[0]].where,
        hint=f"remove one of the references ({files})",
    )


def _reach(graph: nx.DiGraph[NodeName], start: NodeName, depth: int | None) -> frozenset[NodeName]:
    if depth is None:
        return frozenset(nx.descendants(graph, start))
    return frozenset(nx.single_source_shortest_path_length(graph, start, cutoff=depth)) - {start}
