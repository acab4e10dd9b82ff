"""The graph of nodes: parents, children, a stable order, and cycles shown as a path.

Plain dictionaries: a graph library would cost every command more start-up time than all of this file's work.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bqbuild.core.errors import ProjectError
from bqbuild.core.records import Node, NodeName


@dataclass(frozen=True, slots=True)
class Dag:
    """Who reads whom. `order` is topological, and by name wherever the graph leaves a choice."""

    order: tuple[NodeName, ...]
    parents: Mapping[NodeName, tuple[NodeName, ...]]
    children: Mapping[NodeName, tuple[NodeName, ...]]

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
    parents = {
        name: tuple(sorted({ref.node for ref in node.refs if ref.node in nodes})) for name, node in nodes.items()
    }
    below: dict[NodeName, list[NodeName]] = {name: [] for name in nodes}
    for name in sorted(parents):
        for parent in parents[name]:
            below[parent].append(name)
    children = {name: tuple(names) for name, names in below.items()}
    order = _topological(parents, children)
    if len(order) < len(nodes):
        raise _cycle_error(nodes, parents, set(nodes) - set(order))
    return Dag(order=order, parents=parents, children=children)


def _topological(
    parents: Mapping[NodeName, tuple[NodeName, ...]], children: Mapping[NodeName, tuple[NodeName, ...]]
) -> tuple[NodeName, ...]:
    """Kahn's algorithm with a heap of names; nodes on a cycle, and those below one, are missing from the result."""
    waiting = {name: len(above) for name, above in parents.items()}
    ready = [name for name, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    order: list[NodeName] = []
    while ready:
        name = heapq.heappop(ready)
        order.append(name)
        for child in children[name]:
            waiting[child] -= 1
            if waiting[child] == 0:
                heapq.heappush(ready, child)
    return tuple(order)


def _cycle_error(
    nodes: Mapping[NodeName, Node], parents: Mapping[NodeName, tuple[NodeName, ...]], stuck: set[NodeName]
) -> ProjectError:
    """The first cycle by name, as a path in the direction of the data."""
    name = min(stuck)
    walk: list[NodeName] = []
    while name not in walk:  # every stuck node has a stuck parent, so that going up must come round
        walk.append(name)
        name = min(parent for parent in parents[name] if parent in stuck)
    cycle = walk[walk.index(name) :][::-1]
    first = cycle.index(min(cycle))
    path = cycle[first:] + cycle[:first] + [cycle[first]]
    files = ", ".join(f"{name} in {nodes[name].path}" for name in dict.fromkeys(path))
    return ProjectError(
        f"models depend on each other in a circle: {' → '.join(path)}",
        where=nodes[path[0]].where,
        hint=f"remove one of the references ({files})",
    )


def _reach(edges: Mapping[NodeName, tuple[NodeName, ...]], start: NodeName, depth: int | None) -> frozenset[NodeName]:
    """Breadth first along `edges`, level by level."""
    seen: set[NodeName] = set()
    level: Iterable[NodeName] = (start,)
    steps = 0
    while level and (depth is None or steps < depth):
        level = [far for near in level for far in edges[near] if far not in seen and far != start]
        seen.update(level)
        steps += 1
    return frozenset(seen)
