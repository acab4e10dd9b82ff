"""`synthesize`: for each input row × matrix cell × sample one call; a reply makes zero, one or many rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from bqbuild.config.prompts import RenderError
from bqbuild.core.hashing import canonical_json
from bqbuild.core.ids import row_id
from bqbuild.core.records import ID, Node, RowError
from bqbuild.graph.matrix import Cell, expand_matrix, matrix_columns
from bqbuild.nodes.base import BuildContext, Made, RowSteps, Task
from bqbuild.nodes.conversation import Conversation, Outcome, open_conversation
from bqbuild.nodes.llm_rows import (
    carried_fields,
    lineage,
    output_fields,
    prompt_row,
    render_failure,
    reply_failure,
    with_lineage,
)
from bqbuild.store.types import arrow_type


class SynthesizeKind:
    """The kind as the registry knows it."""

    def program(self, node: Node, input_schema: pa.Schema, ctx: BuildContext) -> SynthesizeProgram:
        """Prepare `node` for rows of `input_schema`."""
        return SynthesizeProgram(node, input_schema, open_conversation(ctx.project, node.spec))


class SynthesizeProgram:
    """Synthesis for the rows of one input schema."""

    sides: Mapping[str, pa.Schema] = MappingProxyType({})

    def __init__(self, node: Node, input_schema: pa.Schema, conversation: Conversation) -> None:
        self._spec = node.spec
        self._conversation = conversation
        self._cells = expand_matrix(node.spec.matrix)
        carried = carried_fields(node, input_schema)
        self._carried = [field.name for field in carried]
        matrix = [pa.field(name, arrow_type(type_)) for name, type_ in sorted(matrix_columns(node.spec.matrix).items())]
        self._matrix = [(field.name, pa.types.is_string(field.type)) for field in matrix]
        self.schema = with_lineage([*carried, *matrix, *output_fields(node.spec.output)], node.where)

    def tasks(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Task]]:
        """One task a cell and sample."""
        return [
            [
                Task(row[ID], _label(cell, sample, self._spec.samples), self._steps(row, cell, sample))
                for cell in self._cells
                for sample in range(self._spec.samples)
            ]
            for row in rows
        ]

    def settle(self, rows: list[dict[str, Any]]) -> Made:
        """Nothing is left to decide."""
        return Made(rows)

    def _steps(self, row: Mapping[str, Any], cell: Cell, sample: int) -> RowSteps:
        label = _label(cell, sample, self._spec.samples)
        try:
            messages = self._conversation.messages(prompt_row(row, cell))
        except RenderError as error:
            return self._failed(row, cell, sample, render_failure(row, label, error))
        outcome = yield from self._conversation.hold(messages, sample)
        if outcome.parsed is None:
            return self._failed(row, cell, sample, reply_failure(row, label, outcome))
        made = Made()
        for number, item in enumerate(outcome.parsed.items):
            made.rows.append(self._row(row, cell, item, (sample, number), outcome))
        if outcome.parsed.cut:
            message = f"{outcome.parsed.cut} items beyond max_items were cut"
            made.notes.append(RowError(row[ID], label, "cut", message, answered=True, calls=outcome.calls))
        return made

    def _row(
        self,
        row: Mapping[str, Any],
        cell: Cell,
        item: Mapping[str, Any],
        place: tuple[int, int],
        outcome: Outcome | None,
    ) -> dict[str, Any]:
        sample, number = place
        made = {name: row[name] for name in self._carried}
        for name, is_text in self._matrix:
            value = cell.get(name)
            made[name] = value if value is None or not is_text or isinstance(value, str) else canonical_json(value)
        made.update(item)
        if self._spec.output.reasoning:
            made[self._spec.output.reasoning] = outcome.parsed.reasoning if outcome and outcome.parsed else None
        own_id = row_id("synthesize", row[ID], cell, sample, number)
        return made | lineage(row, own_id, outcome.calls if outcome else ())

    def _failed(self, row: Mapping[str, Any], cell: Cell, sample: int, error: RowError) -> Made:
        made = Made(errors=[error])
        if self._spec.on_error == "null":
            empty = dict.fromkeys(self._spec.output.columns)
            made.rows.append(self._row(row, cell, empty, (sample, 0), None) | {"_bq_calls": list(error.calls)})
        return made


def _label(cell: Cell, sample: int, samples: int) -> str:
    """How the errors table names a cell: `grade=primary`, `grade=primary #2`."""
    parts = [f"{key}={value}" for key, value in sorted(cell.items())]
    if samples > 1:
        parts.append(f"#{sample}")
    return " ".join(parts)
