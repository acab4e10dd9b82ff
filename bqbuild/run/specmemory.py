"""Specs as JSON, and back as plain objects with the same attributes: validated once, remembered, not validated again.

    a spec ── {"spec": {field: …}}    a mapping ── {"map": {key: …}}    a tuple ── {"tuple": […]}    a list, a scalar

What comes back has none of pydantic's methods; it is for reading single values, as selection does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class NoMemoryError(Exception):
    """A value that does not come back from JSON as what it was."""


def encode_spec(value: object) -> Any:
    """A spec, or a value in one, as JSON. Raises NoMemoryError."""
    if value is None or type(value) in (str, bool, int):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is list:
        return [encode_spec(item) for item in value]
    if type(value) is tuple:
        return {"tuple": [encode_spec(item) for item in value]}
    if type(value) is dict:
        if not all(type(key) is str for key in value):
            raise NoMemoryError("a key that is no text")
        return {"map": {key: encode_spec(item) for key, item in value.items()}}
    if hasattr(type(value), "model_fields"):
        return {"spec": {name: encode_spec(item) for name, item in vars(value).items()}}
    raise NoMemoryError(type(value).__name__)


class RememberedSpec:
    """A spec as it is remembered: its fields as attributes, decoded when they are looked at."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        try:
            return decode_spec(self._fields[name])
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        return f"RememberedSpec({self._fields.get('name')!r})"


def decode_spec(value: Any) -> Any:
    """What `encode_spec` was given."""
    if isinstance(value, list):
        return [decode_spec(item) for item in value]
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        if kind == "spec":
            return RememberedSpec(content)
        if kind == "map":
            return {key: decode_spec(item) for key, item in content.items()}
        return tuple(decode_spec(item) for item in content)
    return value
