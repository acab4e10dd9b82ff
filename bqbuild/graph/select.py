"""Selection with dbt's results: the nodes of a graph that criteria name, and those that graph operators reach.

The grammar is in `config/criteria.py`, the methods in `graph/methods.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bqbuild.config.criteria import Combined, Criterion, Definition, parse_definition, parse_union
from bqbuild.core.errors import UsageError, did_you_mean
from bqbuild.core.records import Node, NodeName
from bqbuild.graph.dag import Dag
from bqbuild.graph.methods import known_values, matches


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected nodes in topological order, and what the user should know of the selection."""

    names: tuple[NodeName, ...]
    warnings: tuple[str, ...] = ()


def select(
    dag: Dag,
    nodes: Mapping[NodeName, Node],
    include: Sequence[str],
    exclude: Sequence[str],
    selectors: Mapping[str, Definition],
) -> Selection:
    """The nodes that `include` names (all of them where it is empty) but not `exclude`.

    `selectors` are the project's named selectors. Raises UsageError for an unknown method or selector, and for `@x+`.
    """
    chosen = _Chooser(dag, nodes, selectors)
    names = chosen.union(include) if include else set(dag.order)
    names -= chosen.union(exclude)
    return Selection(dag.sort(names), tuple(dict.fromkeys(chosen.warnings)))


class _Chooser:
    """One selection: the graph, and the warnings gathered on the way."""

    def __init__(self, dag: Dag, nodes: Mapping[NodeName, Node], selectors: Mapping[str, Definition]) -> None:
        self.dag = dag
        self.nodes = nodes
        self.selectors = selectors
        self.warnings: list[str] = []
        self._open_selectors: list[str] = []

    def union(self, texts: Sequence[str]) -> set[NodeName]:
        """Everything that any of the texts selects."""
        return self._chosen(parse_union(texts))

    def _chosen(self, part: Criterion | Combined) -> set[NodeName]:
        if isinstance(part, Criterion):
            return self._criterion(part)
        before = len(self.warnings)
        sets = [self._chosen(each) for each in part.parts]
        if part.by == "union":
            return set().union(*sets)
        if not sets:
            return set()
        if part.by == "difference":
            return sets[0].difference(*sets[1:])
        names = set.intersection(*sets)
        if not names and len(self.warnings) == before:
            self.warnings.append(f"'{part.text}' matches no model: its parts do, but have none in common")
        return names

    def _criterion(self, criterion: Criterion) -> set[NodeName]:
        if criterion.method == "selector":
            base = self._named(criterion)
        else:
            base = {name for name in self.dag.order if matches(self.nodes[name], criterion)}
        if not base:
            self.warnings.append(self._nothing(criterion))
        names = set(base)
        for name in base:
            names |= self.dag.ancestors(name, criterion.up)
            names |= self.dag.descendants(name, None if criterion.at else criterion.down)
        if criterion.at:
            for name in tuple(names):
                names |= self.dag.ancestors(name)
        return names

    def _named(self, criterion: Criterion) -> set[NodeName]:
        """What the selectors of a name, or of a pattern, select."""
        wanted = str(criterion.value)
        found = [name for name in sorted(self.selectors) if fnmatchcase(name, wanted)]
        if not found:
            raise UsageError(f"no selector is called '{wanted}'", hint=did_you_mean(wanted, self.selectors))
        return set().union(*(self._selector(name) for name in found))

    def _selector(self, name: str) -> set[NodeName]:
        if name in self._open_selectors:
            path = " → ".join([*self._open_selectors, name])
            raise UsageError(f"selectors name each other in a circle: {path}")
        self._open_selectors.append(name)
        names = self._chosen(parse_definition(self.selectors[name]))
        self._open_selectors.pop()
        return names

    def _nothing(self, criterion: Criterion) -> str:
        """The warning for a criterion that matches no node, with the nearest thing that there is."""
        text, value = f"'{criterion.text}' matches no model", str(criterion.value)
        if criterion.method == "fqn" and value and value in known_values(self.nodes, "source"):
            return f"{text}: it is a source; did you mean 'source:{value}'?"
        if criterion.method == "fqn" and value in self.selectors:
            return f"{text}: it is a selector; did you mean 'selector:{value}'?"
        if criterion.method == "fqn" and {"+", "@"} & set(value):
            return f"{text}: operators are +m, m+, 2+m, m+3 and @m"
        if criterion.method == "config" and not criterion.keys:
            return f"{text}: `config` needs a key, for example config.materialized:view"
        near = did_you_mean(value, list(known_values(self.nodes, criterion.method)))
        return f"{text}; {near}" if near else text
