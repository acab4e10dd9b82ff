"""What a reply must look like, as a JSON Schema and in words. Pure.

Descriptions stay out, and lists of columns are sorted: neither what is said of a column nor the order of keys may
cause a call, and a schema is part of the call key.
"""

from __future__ import annotations

from typing import Any

from bqbuild.config.specs import OutputColumn, OutputSpec
from bqbuild.core.records import Constraint
from bqbuild.llm.values import ValueType, coerce, column_type

ITEMS = "items"
"""The key under which an exploding reply lists its items: servers want an object at the root."""


def json_schema(output: OutputSpec) -> dict[str, Any]:
    """The JSON Schema of a reply of format json: one object, or an object with a list of them."""
    one = _object({name: _column(column) for name, column in output.columns.items()})
    if not output.explode:
        return one
    several: dict[str, Any] = {"type": "array", "items": one}
    if output.max_items is not None:
        several["maxItems"] = output.max_items
    return _object({ITEMS: several})


def constraint_for(output: OutputSpec) -> Constraint | None:
    """The constraint that a reply can be held to; None for formats that have none (text, tags)."""
    if output.format == "choice":
        return Constraint(choices=next(iter(output.columns.values())).labels)
    if output.format == "json":
        return Constraint(json_schema=json_schema(output))
    return None


def described(output: OutputSpec) -> str:
    """What a reply should be, in words that a re-ask can use."""
    if output.format == "choice":
        return f"exactly one of: {', '.join(next(iter(output.columns.values())).labels)}"
    parts = [f"{name} ({_words(column)})" for name, column in sorted(output.columns.items())]
    if output.format == "tags":
        tags = " ".join(f"<{name}>...</{name}>" for name in sorted(output.columns))
        return f"{tags}{', once for each item' if output.explode else ''}"
    if output.format == "json":
        what = "a JSON list of objects" if output.explode else "one JSON object"
        return f"{what} with the keys {', '.join(parts)}"
    return f"only the {parts[0]}"


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _column(column: OutputColumn) -> dict[str, Any]:
    kind = column_type(column)
    if not column.labels:
        return _typed(kind)
    if kind.name == "list":
        return {"type": "array", "items": _labels(column, kind.item or kind)}
    return _labels(column, kind)


def _labels(column: OutputColumn, kind: ValueType) -> dict[str, Any]:
    labels = [coerce("", kind, label) for label in column.labels]
    return {"enum": labels} if kind.name == "json" else {"type": kind.name, "enum": labels}


def _typed(kind: ValueType) -> dict[str, Any]:
    if kind.name == "json":
        return {}
    if kind.name == "list" and kind.item is not None:
        return {"type": "array", "items": _typed(kind.item)}
    return {"type": kind.name}


def _words(column: OutputColumn) -> str:
    if column.labels:
        return f"one of {', '.join(column.labels)}"
    kind = column_type(column)
    return f"list of {kind.item.name}" if kind.item else kind.name
