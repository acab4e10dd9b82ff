"""What all specs are made of: the strict base class, and the ways in which users may write text, lists and columns."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bqbuild.config.yamlfile import plain


class Spec(BaseModel):
    """Base of all specs: frozen, strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _text(value: object) -> object:
    """Labels and names may be written as numbers; they are text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def listed(value: object) -> object:
    """One value where a list is expected is a list of one."""
    return [value] if isinstance(value, str | dict) else value


def _plain(value: object) -> object:
    """Numbers that remember how they were written are plain numbers where any value may stand."""
    return plain(value)


Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=str | int | float | bool)]
Texts = Annotated[list[Text], BeforeValidator(listed, json_schema_input_type=list[Text] | Text)]
Value = Annotated[Any, BeforeValidator(_plain)]
"""Any YAML value."""
Scalar = Annotated[str | int | float | bool | None, BeforeValidator(_plain)]


class ColumnSpec(Spec):
    """What is declared of one column. `type` is a DuckDB type; `tests` are data tests."""

    name: str
    type: str | None = None
    description: Text = ""
    tests: list[Value] = Field(default_factory=list)


def _columns(value: object) -> object:
    """Columns may be a list of {name: …} or a mapping of name to a type or to the rest."""
    if not isinstance(value, dict):
        return value
    rows = []
    for name, rest in value.items():
        rows.append({"name": name, **(rest if isinstance(rest, dict) else {"type": rest} if rest is not None else {})})
    return rows


class ColumnBody(Spec):
    """A column written as `name: {…}`; only its JSON Schema is used."""

    type: str | None = None
    description: Text = ""
    tests: list[Value] = Field(default_factory=list)


Columns = Annotated[
    list[ColumnSpec],
    BeforeValidator(_columns, json_schema_input_type=list[ColumnSpec] | dict[str, ColumnBody | str | None]),
]
