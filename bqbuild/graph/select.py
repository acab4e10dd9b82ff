"""dbt's selection grammar: `+model`, `tag:x`, `kind:y+2`, `@m`, unions by space, intersections by comma.

Results are dbt's, its oddities included: a comma binds tighter than a space; a dotted name matches from the root of the
fully qualified name; names, `tag:`, `path:`, `file:` take wildcards and `config.x:` does not; malformed graph operators
(`++x`, `+`, `x+y`) select nothing, with a warning; unknown methods and `@x+` are errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from bqbuild.core.errors import UsageError, did_you_mean
from bqbuild.core.records import Node, NodeName
from bqbuild.graph.dag import Dag

_CRITERION = re.compile(
    r"(?P<at>@)?(?:(?P<up>\d*)\+)?(?:(?P<method>[\w.]+):)?(?P<value>.*?)(?:\+(?P<down>\d*))?", re.DOTALL
)
_FILE_SUFFIXES = (".sql", ".yml", ".yaml", ".py")
_WILDCARDS = frozenset("*?[]")


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected nodes in topological order, and what the user should know of the selection."""

    names: tuple[NodeName, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Criterion:
    """One criterion, parsed. `up` and `down` are depths: 0 for none of it, None for all of it."""

    text: str
    method: str
    value: str
    at: bool
    up: int | None
    down: int | None


def select(
    dag: Dag,
    nodes: Mapping[NodeName, Node],
    include: Sequence[str],
    exclude: Sequence[str],
    selectors: Mapping[str, str],
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

    def __init__(self, dag: Dag, nodes: Mapping[NodeName, Node], selectors: Mapping[str, str]) -> None:
        self.dag = dag
        self.nodes = nodes
        self.selectors = selectors
        self.warnings: list[str] = []
        self._open_selectors: list[str] = []

    def union(self, texts: Sequence[str]) -> set[NodeName]:
        """Everything that any of the texts selects; a text is itself a union, split at spaces."""
        names: set[NodeName] = set()
        for text in texts:
            for part in text.split() or [text]:
                names |= self._intersection(part)
        return names

    def _intersection(self, text: str) -> set[NodeName]:
        sets = [self._criterion(parse_criterion(part)) for part in text.split(",")]
        return set.intersection(*sets)

    def _criterion(self, criterion: _Criterion) -> set[NodeName]:
        if criterion.method == "selector":
            base = self._named(criterion)
        else:
            matches = _METHODS[criterion.method.partition(".")[0]]
            base = {name for name in self.dag.order if matches(self.nodes[name], criterion)}
        if not base:
            self.warnings.append(self._nothing(criterion))
        names = set(base)
        for name in base:
            names |= self.dag.ancestors(name, criterion.up)
            names |= self.dag.descendants(name, criterion.down)
        if criterion.at:
            for name in tuple(names):
                names |= self.dag.ancestors(name)
        return names

    def _named(self, criterion: _Criterion) -> set[NodeName]:
        name = criterion.value
        if name not in self.selectors:
            raise UsageError(f"no selector is called '{name}'", hint=did_you_mean(name, self.selectors))
        if name in self._open_selectors:
            path = " → ".join([*self._open_selectors, name])
            raise UsageError(f"selectors name each other in a circle: {path}")
        self._open_selectors.append(name)
        names = self.union([self.selectors[name]])
        self._open_selectors.pop()
        return names

    def _nothing(self, criterion: _Criterion) -> str:
        """The warning for a criterion that matches no node, with the nearest thing that there is."""
        known = list(_known_values(self.nodes, criterion.method))
        near = did_you_mean(criterion.value, known)
        text = f"'{criterion.text}' matches no model"
        return f"{text}; {near}" if near else text


def parse_criterion(text: str) -> _Criterion:
    """One criterion, with its graph operators. Raises UsageError for `@x+` and unknown methods."""
    match = _CRITERION.fullmatch(text)
    assert match is not None, "every part of the pattern is optional"
    at, up, down = match["at"], match["up"], match["down"]
    if at and down is not None:
        raise UsageError(f"'{text}': `@` and a trailing `+` do not go together", hint="`@m` already takes all children")
    method, value = match["method"], match["value"]
    if method is None:
        method = _default_method(value)
    base = method.partition(".")[0]
    if base not in (*_METHODS, "selector") or base not in ("config", method):
        raise UsageError(
            f"'{text}': there is no selection method '{method}'",
            hint=did_you_mean(base, [*_METHODS, "selector"]) or f"methods are {', '.join([*_METHODS, 'selector'])}",
        )
    if base == "config" and base == method:
        raise UsageError(f"'{text}': `config` needs a key", hint="for example config.materialized:view")
    return _Criterion(text, method, value, bool(at), _depth(up), None if at else _depth(down))


def _depth(text: str | None) -> int | None:
    """The number of edges that an operator asks for: 0 without the operator, None (all) without a number."""
    if text is None:
        return 0
    return int(text) if text else None


def _default_method(value: str) -> str:
    """What a criterion without a method means: a path where it has a slash, a file by its suffix, else a name."""
    if "/" in value:
        return "path"
    return "file" if value.lower().endswith(_FILE_SUFFIXES) else "fqn"


def _by_fqn(node: Node, criterion: _Criterion) -> bool:
    value = criterion.value
    if not value:
        return False
    return fnmatchcase(node.name, value) or _fqn_matches(node.fqn, value) or _fqn_matches(node.fqn[1:], value)


def _fqn_matches(fqn: Sequence[str], value: str) -> bool:
    """dbt's rule: the dotted parts must match from the root on; from the first wildcard on the rest must match."""
    have = [piece for segment in fqn for piece in segment.split(".")]
    want = value.split(".")
    if len(have) < len(want):
        return False
    for position, piece in enumerate(want):
        if _WILDCARDS & set(piece):
            return fnmatchcase(".".join(have[position:]), ".".join(want[position:]))
        if have[position] != piece:
            return False
    return True


def _by_path(node: Node, criterion: _Criterion) -> bool:
    pattern = PurePosixPath(criterion.value).parts
    path = PurePosixPath(node.path)
    return bool(pattern) and any(_glob_matches(place.parts, pattern) for place in (path, *path.parents))


def _glob_matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a glob, part by part; `**` stands for any number of parts."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_glob_matches(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _glob_matches(parts[1:], pattern[1:])


def _by_file(node: Node, criterion: _Criterion) -> bool:
    path = PurePosixPath(node.path)
    return fnmatchcase(path.name, criterion.value) or fnmatchcase(path.stem, criterion.value)


def _by_tag(node: Node, criterion: _Criterion) -> bool:
    return any(fnmatchcase(tag, criterion.value) for tag in node.spec.tags)


def _by_kind(node: Node, criterion: _Criterion) -> bool:
    return fnmatchcase(node.kind, criterion.value)


def _by_source(node: Node, criterion: _Criterion) -> bool:
    """`source:a` is the source `a` and every table `a.b` of it; parts take wildcards."""
    if node.kind != "source":
        return False
    have, want = node.name.split("."), criterion.value.split(".")
    return len(have) >= len(want) and all(fnmatchcase(a, b) for a, b in zip(have, want, strict=False))


def _by_group(node: Node, criterion: _Criterion) -> bool:
    return node.spec.group is not None and fnmatchcase(node.spec.group, criterion.value)


def _by_prompt(node: Node, criterion: _Criterion) -> bool:
    return any(fnmatchcase(name, criterion.value) for name in _settings(node, "prompt"))


def _by_llm(node: Node, criterion: _Criterion) -> bool:
    return any(fnmatchcase(name, criterion.value) for name in _settings(node, "llm"))


def _settings(node: Node, key: str) -> Iterator[str]:
    """The values of `key` in a node's spec, and in the judges of its rules."""
    judges = [rule.judge for rule in getattr(node.spec, "rules", ()) if rule.judge is not None]
    for holder in (node.spec, *judges):
        value = getattr(holder, key, None)
        if isinstance(value, str):
            yield value


def _by_config(node: Node, criterion: _Criterion) -> bool:
    """`config.a.b:value`: equal to the value, or a list or mapping that has it; no wildcards, as in dbt."""
    value: Any = node.spec
    for key in criterion.method.split(".")[1:]:
        if isinstance(value, Mapping):
            value = value.get(key)
        else:
            value = getattr(value, key, getattr(value, f"{key}_", None))
    values = value if isinstance(value, list | tuple | set | Mapping) else [value]
    return any(item is not None and _as_written(item) == _as_written(criterion.value) for item in values)


def _as_written(value: object) -> str:
    """A configured value as a user types it in a selector; truth values in any case."""
    text = str(value)
    return text.lower() if text.lower() in ("true", "false") else text


_METHODS: Mapping[str, Callable[[Node, _Criterion], bool]] = {
    "fqn": _by_fqn,
    "path": _by_path,
    "file": _by_file,
    "tag": _by_tag,
    "kind": _by_kind,
    "source": _by_source,
    "group": _by_group,
    "prompt": _by_prompt,
    "llm": _by_llm,
    "config": _by_config,
}


def _known_values(nodes: Mapping[NodeName, Node], method: str) -> Iterator[str]:
    """Values that would have matched, for the hint."""
    for name, node in nodes.items():
        match method:
            case "fqn":
                yield name
                yield from node.fqn[1:-1]
            case "path":
                yield node.path
                yield from (str(parent) for parent in PurePosixPath(node.path).parents if str(parent) != ".")
            case "file":
                yield PurePosixPath(node.path).name
            case "tag":
                yield from node.spec.tags
            case "kind":
                yield node.kind
            case "source" if node.kind == "source":
                yield name
            case "group" if node.spec.group is not None:
                yield node.spec.group
            case "prompt" | "llm":
                yield from _settings(node, method)
