"""What the rows of the LLM kinds have in common: their columns, their lineage, and how a failure is recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from bqbuild.config.prompts import RenderError
from bqbuild.config.specs import OutputSpec
from bqbuild.core.errors import BuildError, Where
from bqbuild.core.records import CALLS, ID, LINEAGE_COLUMNS, PARENT, ROOTS, Node, RowError
from bqbuild.nodes.conversation import Outcome
from bqbuild.store.types import arrow_type

LINEAGE_FIELDS = (
    pa.field(ID, pa.string()),
    pa.field(PARENT, pa.string()),
    pa.field(CALLS, pa.list_(pa.string())),
    pa.field(ROOTS, pa.list_(pa.string())),
)

MAX_RECORDED_RESPONSE = 100_000
"""Characters of an unusable reply that the errors table keeps; the call log has it whole."""


def carried_fields(node: Node, input_schema: pa.Schema) -> list[pa.Field]:
    """The input columns that a node hands on: all of the user's, or those of `carry`, in input order."""
    fields = [field for field in input_schema if field.name not in LINEAGE_COLUMNS]
    if node.spec.carry is None:
        return fields
    wanted = {name.lower(): name for name in node.spec.carry}  # DuckDB does not mind case
    missing = wanted.keys() - {field.name.lower() for field in fields}
    if missing:
        raise BuildError(
            f"`carry` of `{node.name}` names `{wanted[min(missing)]}`, which its input does not have",
            where=node.places.get("carry", node.where),
        )
    return [field for field in fields if field.name.lower() in wanted]


def output_fields(output: OutputSpec) -> list[pa.Field]:
    """The columns that a reply makes, the reasoning's last: by name, as the order of keys in YAML is form."""
    fields = [pa.field(name, output_type(output, name)) for name in sorted(output.columns)]
    if output.reasoning:
        fields.append(pa.field(output.reasoning, pa.string()))
    return fields


def output_type(output: OutputSpec, name: str) -> pa.DataType:
    """The Arrow type of an output column; a `scale` of integers is one of integers."""
    column = output.columns[name]
    if column.scale is not None and column.type == "string":
        return pa.int64()
    return arrow_type(column.type)


def with_lineage(fields: Iterable[pa.Field], place: Where) -> pa.Schema:
    """The schema of a table with these user columns. Raises BuildError where two have one name."""
    fields = list(fields)
    seen: set[str] = set()
    for field in fields:
        if field.name.lower() in seen:
            raise BuildError(
                f"column `{field.name}` would be there twice", where=place, hint="rename the output column"
            )
        seen.add(field.name.lower())
    return pa.schema([*fields, *LINEAGE_FIELDS])


def lineage(row: Mapping[str, Any], own_id: str, calls: Sequence[str]) -> dict[str, Any]:
    """The lineage columns of a row made from `row`."""
    return {ID: own_id, PARENT: row[ID], CALLS: list(calls), ROOTS: row[ROOTS]}


def prompt_row(row: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    """What a prompt sees of a row: its user columns and the matrix cell."""
    return {key: value for key, value in row.items() if key not in LINEAGE_COLUMNS} | dict(cell)


def render_failure(row: Mapping[str, Any], cell: str, error: RenderError) -> RowError:
    """The row does not fit the prompt; no call was made."""
    return RowError(row_id=row[ID], cell=cell, reason="render", message=str(error), answered=True)


def reply_failure(row: Mapping[str, Any], cell: str, outcome: Outcome) -> RowError:
    """The reply could not be used."""
    problem = outcome.problem
    assert problem is not None  # only called for outcomes that have one
    return RowError(
        row_id=row[ID],
        cell=cell,
        reason=problem.reason,
        message=problem.message,
        answered=True,
        response=outcome.reply.text[:MAX_RECORDED_RESPONSE],
        calls=outcome.calls,
    )
