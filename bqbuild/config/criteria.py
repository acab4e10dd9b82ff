"""The grammar of selection: `+model`, `tag:x`, `2+m+3`, `@m`, unions by space, intersections by comma, and definitions
under `selectors:`, as text or in dbt's long form. What comes out is a tree of criteria; nothing here knows a graph.

A comma binds tighter than a space. Malformed operators (`++x`, `+`, `x+y`) are read as dbt reads them: as values that
no node has. Unknown methods and `@x+` are errors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bqbuild.core.errors import UsageError, did_you_mean

METHODS = (
    *("fqn", "path", "file", "tag", "config", "source", "group", "package", "resource_type", "selector"),
    *("exposure", "metric", "semantic_model", "saved_query", "unit_test"),
    *("kind", "prompt", "llm"),
)
"""The methods that there are; the second line is of what dbt has and bqbuild has not: they select nothing."""

_CRITERION = re.compile(
    r"(?P<at>@)?(?:(?P<up>\d*)\+)?(?:(?P<method>[\w.]+):)?(?P<value>.*?)(?:\+(?P<down>\d*))?", re.DOTALL
)
_FILE_SUFFIXES = (".sql", ".py", ".csv")
_FLAGS = ("parents", "children", "childrens_parents")
_DEPTHS = ("parents_depth", "children_depth")
_KEYS = ("method", "value", *_FLAGS, *_DEPTHS, "exclude")

Definition = str | Mapping[str, Any]
"""A named selector as it is written."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion, parsed. `up` and `down` are depths: 0 for none of it, None for all of it."""

    text: str
    method: str
    keys: tuple[str, ...]
    """What follows the method after dots: `meta`, `owner` of `config.meta.owner`."""
    value: Any
    at: bool = False
    up: int | None = 0
    down: int | None = 0


@dataclass(frozen=True, slots=True)
class Combined:
    """Criteria put together; a difference is the first part without the others."""

    text: str
    by: Literal["union", "intersection", "difference"]
    parts: tuple[Criterion | Combined, ...]


def parse_union(texts: Sequence[str]) -> Combined:
    """What any of the texts names; a text is itself a union, split at spaces. Raises UsageError."""
    parts = tuple(_intersection(part) for text in texts for part in text.split() or [text])
    return Combined(" ".join(texts), "union", parts)


def parse_definition(definition: object) -> Criterion | Combined:
    """A named selector: an expression as on the command line, or dbt's long form. Raises UsageError."""
    if isinstance(definition, Mapping) and len(definition) > 1 and {"union", "intersection"} & definition.keys():
        raise UsageError(f"only one of `union` and `intersection` can stand at the top, not {_listed(definition)}")
    return _definition(definition)


def parse_criterion(text: str) -> Criterion:
    """One criterion, with its graph operators. Raises UsageError for `@x+` and unknown methods."""
    match = _CRITERION.fullmatch(text)
    assert match is not None, "every part of the pattern is optional"
    method, value, down = match["method"], match["value"], match["down"]
    name, keys = _method(method if method is not None else _default_method(value), text)
    _check_operators(text, bool(match["at"]), down is not None)
    return Criterion(text, name, keys, value, bool(match["at"]), _depth(match["up"]), _depth(down))


def _intersection(text: str) -> Criterion | Combined:
    parts = tuple(parse_criterion(part) for part in text.split(","))
    return parts[0] if len(parts) == 1 else Combined(text, "intersection", parts)


def _check_operators(text: str, at: bool, children: bool) -> None:
    if at and children:
        raise UsageError(f"'{text}': `@` and a trailing `+` do not go together", hint="`@m` already takes all children")


def _method(written: str, text: str) -> tuple[str, tuple[str, ...]]:
    name, *keys = written.split(".")
    if name not in METHODS:
        raise UsageError(
            f"'{text}': there is no selection method '{name}'",
            hint=did_you_mean(name, METHODS) or f"methods are {', '.join(METHODS)}",
        )
    return name, tuple(keys)


def _default_method(value: str) -> str:
    """What a criterion without a method means: a path where it has a slash, a file by its suffix, else a name."""
    if "/" in value:
        return "path"
    return "file" if value.lower().endswith(_FILE_SUFFIXES) else "fqn"


def _depth(text: str | None) -> int | None:
    """The number of edges that an operator asks for: 0 without the operator, None (all) without a number."""
    if text is None:
        return 0
    return int(text) if text else None


def _definition(definition: object) -> Criterion | Combined:
    if isinstance(definition, str):
        return parse_union([definition])
    if not isinstance(definition, Mapping):
        raise UsageError(f"a selector is text or a mapping, not {_shown(definition)}")
    for by in ("union", "intersection"):
        if by in definition:
            return _group(definition, by)
    return _long_criterion(definition)


def _group(definition: Mapping[str, Any], by: Any) -> Combined:
    """A `union` or `intersection`; an `exclude` in its list is taken away from the whole of it."""
    if others := definition.keys() - {by}:
        raise UsageError(f"`{by}` stands alone, not with {_listed(sorted(map(str, others)))}")
    items = _items(definition, by)
    # as in dbt, also where the item has a method of its own: that one then counts for nothing
    excluded = [item for item in items if isinstance(item, Mapping) and "exclude" in item]
    parts = [item for item in items if item not in excluded]
    if len(excluded) > 1:
        raise UsageError(f"a `{by}` can have one `exclude`, and this has {len(excluded)}", hint="put them in one list")
    whole = Combined(_shown(definition), by, tuple(map(_definition, parts)))
    return _without(whole, excluded[0]) if excluded else whole


def _without(base: Criterion | Combined, definition: Mapping[str, Any]) -> Combined:
    away = tuple(_definition(item) for item in _items(definition, "exclude"))
    return Combined(base.text, "difference", (base, *away))


def _items(definition: Mapping[str, Any], key: str) -> list[Any]:
    items = definition[key]
    if not isinstance(items, list):
        raise UsageError(f"`{key}` takes a list, not {_shown(items)}")
    return items


def _long_criterion(definition: Mapping[str, Any]) -> Criterion | Combined:
    """`{tag: daily}`, or `method`, `value` and what goes with them."""
    known = definition
    if len(definition) == 1:
        ((method, value),) = definition.items()
        known = {"method": method, "value": value}
    elif "method" not in definition or "value" not in definition:
        raise UsageError(f"a criterion is `method: value`, or has `method` and `value`: {_shown(definition)}")
    for key in known:
        if key not in _KEYS:
            hint = did_you_mean(str(key), _KEYS) or f"keys are {', '.join(_KEYS)}"
            raise UsageError(f"unknown key '{key}' in {_shown(definition)}", hint=hint)
    text = f"{known['method']}:{known['value']}"
    name, keys = _method(str(known["method"]), text)
    at = _flag(known, "childrens_parents")
    _check_operators(text, at, _flag(known, "children"))
    base = Criterion(
        text, name, keys, known["value"], at, _long_depth(known, "parents"), _long_depth(known, "children")
    )
    return _without(base, known) if "exclude" in known else base


def _flag(known: Mapping[str, Any], key: str) -> bool:
    value = known.get(key, False)
    if not isinstance(value, bool):
        raise UsageError(f"`{key}` is true or false, not {_shown(value)}")
    return value


def _long_depth(known: Mapping[str, Any], key: str) -> int | None:
    """How far `parents` or `children` reach. As in dbt, a depth alone does nothing, and a depth of 0 is no limit."""
    depth = known.get(f"{key}_depth")
    if depth is not None and (not isinstance(depth, int) or isinstance(depth, bool) or depth < 0):
        raise UsageError(f"`{key}_depth` is a number of edges, not {_shown(depth)}")
    return (depth or None) if _flag(known, key) else 0


def _listed(keys: Any) -> str:
    return ", ".join(f"`{key}`" for key in keys)


def _shown(value: object) -> str:
    """A piece of YAML, in JSON's form, on one line, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}…"
