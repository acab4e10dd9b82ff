"""The graph of nodes: parents, children, a stable order, and cycles shown as a path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from bqbuild.core.errors import ProjectError
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


def build_dag(nodes: Mapping[NodeName, Node]) -> Dag:
    """The graph of `nodes`. Raises ProjectError for a cycle; refs to nodes that are not there are left out."""
    parents = {name: tuple(sorted({ref.node for ref in nodes[name].refs if ref.node in nodes})) for name in nodes}
    below: dict[NodeName, list[NodeName]] = {name: [] for name in nodes}
    for name in sorted(nodes):
        for parent in parents[name]:
            below[parent].append(name)
    children = {name: tuple(found) for name, found in below.items()}
    order = _sorted(parents, children)
    if len(order) < len(nodes):
        raise _cycle_error(nodes, _cycle(parents, set(nodes) - set(order)))
    return Dag(order, parents, children)


def _sorted(parents: Neighbours, children: Neighbours) -> tuple[NodeName, ...]:
    """Kahn's algorithm, the first by name of those that are ready; what a cycle holds back is left out."""
    waiting = {name: len(above) for name, above in parents.items()}
    ready = [name for name, number in waiting.items() if not number]
    heapify(ready)
    order = []
    while ready:
        name = heappop(ready)
        order.append(name)
        for child in children[name]:
            waiting[child] -= 1
            if not waiting[child]:
                heappush(ready, child)
    return tuple(order)


def _cycle(parents: Neighbours, held: set[NodeName]) -> list[NodeName]:
    """A cycle among nodes of which each has a parent that is held as well: going up, one comes back."""
    path = [min(held)]
    while True:
        above = next(parent for parent in parents[path[-1]] if parent in held)
        if above in path:
            return path[path.index(above) :][::-1]
        path.append(above)


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
