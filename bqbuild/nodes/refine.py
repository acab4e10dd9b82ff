"""`refine`: rewrites named columns of a row and keeps what they were in `<column>_before`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from bqbuild.config.prompts import RenderError
from bqbuild.core.errors import BuildError, did_you_mean
from bqbuild.core.records import CALLS, ID, Node
from bqbuild.graph.predicates import parse_predicate
from bqbuild.nodes.base import BuildContext, Made, RowSteps, Task
from bqbuild.nodes.conversation import Conversation, open_conversation
from bqbuild.nodes.llm_rows import (
    carried_fields,
    lineage,
    output_fields,
    output_type,
    prompt_row,
    render_failure,
    reply_failure,
    with_lineage,
)
from bqbuild.nodes.predicates import RowPredicate


class RefineKind:
    """The kind as the registry knows it."""

    def program(self, node: Node, input_schema: pa.Schema, ctx: BuildContext) -> RefineProgram:
        """Prepare `node` for rows of `input_schema`."""
        return RefineProgram(node, input_schema, open_conversation(ctx.project, node.spec))


class RefineProgram:
    """Refinement for the rows of one input schema."""

    sides: Mapping[str, pa.Schema] = MappingProxyType({})

    def __init__(self, node: Node, input_schema: pa.Schema, conversation: Conversation) -> None:
        self._spec = node.spec
        self._conversation = conversation
        self._refined = sorted(node.spec.output.columns)
        for name in self._refined:
            if name not in input_schema.names:
                raise BuildError(
                    f"`{node.name}` refines `{name}`, which its input does not have",
                    where=node.places.get(f"output.columns.{name}", node.where),
                    hint=did_you_mean(name, input_schema.names),
                )
        # what an earlier refinement left in `<column>_before` gives way: it is the value before this node
        replaced = {f"{name}_before" for name in self._refined}
        kept = [field for field in carried_fields(node, input_schema) if field.name not in replaced]
        self._carried = [field.name for field in kept if field.name not in self._refined]
        fields = [
            pa.field(field.name, output_type(node.spec.output, field.name)) if field.name in self._refined else field
            for field in kept
        ]
        fields += [
            field for field in output_fields(node.spec.output) if field.name not in {kept.name for kept in fields}
        ]
        fields += [pa.field(f"{name}_before", input_schema.field(name).type) for name in self._refined]
        self.schema = with_lineage(fields, node.where)
        place = node.places.get("accept", node.where)
        self._accept = RowPredicate(node.spec.accept, place) if node.spec.accept else None
        # `accept` sees the whole row, what is not carried included
        named = (
            {name.lower() for name in parse_predicate(node.spec.accept, place).columns} if node.spec.accept else set()
        )
        there = {name.lower() for name in self.schema.names}
        self._aside = [field for field in input_schema if field.name.lower() in named - there]

    def tasks(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Task]]:
        """One task a row."""
        return [[Task(row[ID], "", self._steps(row))] for row in rows]

    def settle(self, rows: list[dict[str, Any]]) -> Made:
        """Give rows that `accept` turns down their old values back."""
        if self._accept is None or not rows:
            return Made(rows)
        accepted = self._accept.mask(pa.Table.from_pylist(rows, schema=pa.schema([*self.schema, *self._aside])))
        for row, is_accepted in zip(rows, accepted, strict=True):
            for field in self._aside:
                del row[field.name]
            if not is_accepted:
                row.update({name: self._kept(name, row[f"{name}_before"]) for name in self._refined})
        return Made(rows)

    def _steps(self, row: Mapping[str, Any]) -> RowSteps:
        values = {name: row[name] for name in self._refined}
        reasoning: str | None = None
        calls: list[str] = []
        made = Made()
        for _ in range(self._spec.rounds):
            try:
                messages = self._conversation.messages(prompt_row(row, values))
            except RenderError as error:
                made.errors.append(render_failure(row, "", error))
                break
            outcome = yield from self._conversation.hold(messages)
            calls += outcome.calls
            if outcome.parsed is None or not outcome.parsed.items:
                made.errors.append(reply_failure(row, "", outcome))
                break
            values, reasoning = dict(outcome.parsed.items[0]), outcome.parsed.reasoning
        if made.errors and self._spec.on_error in ("drop", "fail"):
            return made
        if made.errors and self._spec.on_error == "null":
            values = dict.fromkeys(self._refined)
        elif made.errors:
            values = {name: self._kept(name, value) for name, value in values.items()}
        made.rows.append(self._row(row, values, reasoning, calls))
        return made

    def _kept(self, name: str, value: Any) -> Any:
        """An old value as the column holds it now, where its type is another; as it is, where it cannot be that."""
        wanted = self.schema.field(name).type
        try:
            return pa.array([value]).cast(wanted)[0].as_py() if value is not None else None
        except (pa.ArrowException, ValueError):
            return value

    def _row(
        self, row: Mapping[str, Any], values: Mapping[str, Any], reasoning: str | None, calls: list[str]
    ) -> dict[str, Any]:
        made = {name: row[name] for name in self._carried} | dict(values)
        made |= {f"{name}_before": row[name] for name in self._refined}
        made |= {field.name: row[field.name] for field in self._aside}
        if self._spec.output.reasoning:
            made[self._spec.output.reasoning] = reasoning
        return made | lineage(row, row[ID], ()) | {CALLS: calls}
