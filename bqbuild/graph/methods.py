"""The methods of selection: which nodes a criterion names, its graph operators aside. As in dbt, its oddities included:

names and `fqn:` match models, never sources; a dotted name matches from the root of the fully qualified name, with or
without the project; `config.x:` takes no wildcards and compares text with text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from bqbuild.config.criteria import Criterion
from bqbuild.core.errors import UsageError, did_you_mean
from bqbuild.core.records import Node, NodeName

_WILDCARDS = frozenset("*?[]")
_RESOURCE_TYPES = (
    *("model", "source", "test", "seed", "snapshot", "analysis", "operation", "exposure", "metric", "semantic_model"),
    *("saved_query", "unit_test", "macro", "doc", "group", "fixture", "function", "rpc", "sql operation"),
)
"""dbt's; bqbuild's nodes are models and sources."""


def matches(node: Node, criterion: Criterion) -> bool:
    """Whether a criterion names a node. Raises UsageError for a value that its method cannot have."""
    return _METHODS[criterion.method](node, criterion)


def known_values(nodes: Mapping[NodeName, Node], method: str) -> Iterator[str]:
    """Values of a method that match something, to offer the nearest."""
    for node in nodes.values():
        match method:
            case "fqn" if node.kind != "source":
                yield node.name
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
            case "package":
                yield node.fqn[0]
            case "source" if node.kind == "source":
                yield node.name
                yield node.name.partition(".")[0]
            case "group" if node.spec.group is not None:
                yield node.spec.group
            case "prompt" | "llm":
                yield from _settings(node, method)


def _by_fqn(node: Node, criterion: Criterion) -> bool:
    value = str(criterion.value)
    if node.kind == "source" or not value:
        return False
    return _fqn_matches(node.fqn, value) or _fqn_matches(node.fqn[1:], value)


def _fqn_matches(fqn: Sequence[str], value: str) -> bool:
    """The name, or the dotted parts from the root on; from the first wildcard on the rest must match.

    A wildcard without dots also matches the name alone, however deep its folder.
    """
    if fqn[-1] == value:
        return True
    have = [piece for segment in fqn for piece in segment.split(".")]
    want = value.split(".")
    if len(have) < len(want):
        return False
    for position, piece in enumerate(want):
        if _WILDCARDS & set(piece):
            rest = fnmatchcase(".".join(have[position:]), ".".join(want[position:]))
            return rest or (len(want) == 1 and fnmatchcase(fqn[-1], value))
        if have[position] != piece:
            return False
    return True


def _by_path(node: Node, criterion: Criterion) -> bool:
    """The file of a node, a folder that it is in, or the YAML file that describes it."""
    pattern = _pattern(criterion)
    path = PurePosixPath(node.path)
    places = [path, *path.parents, *([PurePosixPath(node.patch)] if node.patch else [])]
    return any(_glob_matches(place.parts, pattern) for place in places)


def _pattern(criterion: Criterion) -> tuple[str, ...]:
    """The parts of a glob. What dbt ends at is an error here too: it cannot mean anything."""
    value = str(criterion.value)
    parts = PurePosixPath(value).parts
    if not parts:
        raise UsageError(f"'{criterion.text}': this names no path", hint="for example path:models/staging")
    if value.startswith("/"):
        raise UsageError(f"'{criterion.text}': paths start at the project's folder", hint="leave out the leading slash")
    if any("**" in part and part != "**" for part in parts):
        raise UsageError(f"'{criterion.text}': `**` stands for whole folders", hint="for example models/**/*.sql")
    return parts


def _glob_matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a glob, part by part; `**` stands for any number of parts."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_glob_matches(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _glob_matches(parts[1:], pattern[1:])


def _by_file(node: Node, criterion: Criterion) -> bool:
    path, value = PurePosixPath(node.path), str(criterion.value)
    return fnmatchcase(path.name, value) or fnmatchcase(path.stem, value)


def _by_tag(node: Node, criterion: Criterion) -> bool:
    return any(fnmatchcase(tag, str(criterion.value)) for tag in node.spec.tags)


def _by_kind(node: Node, criterion: Criterion) -> bool:
    return fnmatchcase(node.kind, str(criterion.value))


def _by_package(node: Node, criterion: Criterion) -> bool:
    return criterion.value == "this" or fnmatchcase(node.fqn[0], str(criterion.value))


def _by_resource_type(node: Node, criterion: Criterion) -> bool:
    if criterion.value not in _RESOURCE_TYPES:
        near = did_you_mean(str(criterion.value), _RESOURCE_TYPES)
        raise UsageError(
            f"'{criterion.text}': there is no resource type '{criterion.value}'",
            hint=near or "model or source; `kind:` tells models apart",
        )
    return bool(criterion.value == ("source" if node.kind == "source" else "model"))


def _by_source(node: Node, criterion: Criterion) -> bool:
    """`source:a`, `source:a.table` and `source:project.a.table`; a source `a.b` is the table `b` of `a`."""
    want = str(criterion.value).split(".")
    if len(want) > 3:
        raise UsageError(
            f"'{criterion.text}': a source has at most three parts",
            hint="source:name, source:name.table or source:project.name.table",
        )
    if node.kind != "source":
        return False
    name, _, table = node.name.partition(".")
    project, wanted, wanted_table = [("*", *want, "*"), ("*", *want), tuple(want)][len(want) - 1]
    return node.name == criterion.value or (
        fnmatchcase(node.fqn[0], project) and fnmatchcase(name, wanted) and fnmatchcase(table, wanted_table)
    )


def _by_group(node: Node, criterion: Criterion) -> bool:
    return bool(node.spec.group) and fnmatchcase(node.spec.group, str(criterion.value))


def _by_prompt(node: Node, criterion: Criterion) -> bool:
    return any(fnmatchcase(name, str(criterion.value)) for name in _settings(node, "prompt"))


def _by_llm(node: Node, criterion: Criterion) -> bool:
    return any(fnmatchcase(name, str(criterion.value)) for name in _settings(node, "llm"))


def _settings(node: Node, key: str) -> Iterator[str]:
    """The values of `key` in a node's spec, and in the judges of its rules."""
    judges = [rule.judge for rule in getattr(node.spec, "rules", ()) if rule.judge is not None]
    for holder in (node.spec, *judges):
        value = getattr(holder, key, None)
        if isinstance(value, str):
            yield value


def _by_config(node: Node, criterion: Criterion) -> bool:
    """`config.a.b:value`: equal to the value, or a list that has it; true and false in any case."""
    value: Any = node.spec
    for key in criterion.keys:
        if isinstance(value, Mapping):
            value = value.get(key)
        else:
            value = getattr(value, key, getattr(value, f"{key}_", None))
    wanted = criterion.value
    values = [item for item in (value if isinstance(value, list | tuple) else [value]) if item is not None]
    if str(wanted).lower() in ("true", "false") and (str(wanted).lower() == "true") in [
        item for item in values if isinstance(item, bool)
    ]:
        return True
    return bool(criterion.keys) and wanted in values


def _by_nothing(node: Node, criterion: Criterion) -> bool:
    return False


_METHODS: Mapping[str, Callable[[Node, Criterion], bool]] = {
    "fqn": _by_fqn,
    "path": _by_path,
    "file": _by_file,
    "tag": _by_tag,
    "config": _by_config,
    "source": _by_source,
    "group": _by_group,
    "package": _by_package,
    "resource_type": _by_resource_type,
    "exposure": _by_nothing,
    "metric": _by_nothing,
    "semantic_model": _by_nothing,
    "saved_query": _by_nothing,
    "unit_test": _by_nothing,
    "kind": _by_kind,
    "prompt": _by_prompt,
    "llm": _by_llm,
}
