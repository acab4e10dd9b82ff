"""`annotate`: adds label columns to a row; by one reply, by the majority of `votes`, or as a `pass_rate`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from bqbuild.config.prompts import RenderError
from bqbuild.config.specs import PassRateSpec
from bqbuild.core.errors import BuildError
from bqbuild.core.hashing import canonical_json
from bqbuild.core.records import ID, Node, RowError
from bqbuild.nodes.base import BuildContext, Made, RowSteps, Task
from bqbuild.nodes.conversation import Conversation, Outcome, open_conversation, together
from bqbuild.nodes.llm_rows import (
    carried_fields,
    lineage,
    output_fields,
    prompt_row,
    render_failure,
    reply_failure,
    with_lineage,
)


class AnnotateKind:
    """The kind as the registry knows it."""

    def program(self, node: Node, input_schema: pa.Schema, ctx: BuildContext) -> AnnotateProgram:
        """Prepare `node` for rows of `input_schema`."""
        return AnnotateProgram(node, input_schema, open_conversation(ctx.project, node.spec))


class AnnotateProgram:
    """Annotation for the rows of one input schema."""

    sides: Mapping[str, pa.Schema] = MappingProxyType({})

    def __init__(self, node: Node, input_schema: pa.Schema, conversation: Conversation) -> None:
        self._spec = node.spec
        self._conversation = conversation
        carried = carried_fields(node, input_schema)
        self._carried = [field.name for field in carried]
        self._pass_rate: PassRateSpec | None = node.spec.pass_rate
        if self._pass_rate is not None:
            if self._pass_rate.reference not in input_schema.names:
                raise BuildError(
                    f"`pass_rate` of `{node.name}` compares with `{self._pass_rate.reference}`, which its input lacks",
                    where=node.places.get("pass_rate.reference", node.where),
                )
            added = [pa.field(self._pass_rate.column, pa.float64())]
        else:
            added = output_fields(node.spec.output)
            if node.spec.votes > 1:
                added += [pa.field(f"{name}_agreement", pa.float64()) for name in sorted(node.spec.output.columns)]
        self._added = [field.name for field in added]
        self._draws = self._pass_rate.samples if self._pass_rate else node.spec.votes
        self.schema = with_lineage([*carried, *added], node.where)

    def tasks(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Task]]:
        """One task a row."""
        return [[Task(row[ID], "", self._steps(row))] for row in rows]

    def settle(self, rows: list[dict[str, Any]]) -> Made:
        """Nothing is left to decide."""
        return Made(rows)

    def _steps(self, row: Mapping[str, Any]) -> RowSteps:
        try:
            messages = self._conversation.messages(prompt_row(row, {}))
        except RenderError as error:
            return self._failed(row, render_failure(row, "", error))
        outcomes = yield from together([self._conversation.hold(messages, sample) for sample in range(self._draws)])
        usable = [outcome for outcome in outcomes if outcome.parsed is not None and outcome.parsed.items]
        if not usable:
            ballots = tuple(call for outcome in outcomes for call in outcome.calls)
            return self._failed(row, replace(reply_failure(row, "", outcomes[0]), calls=ballots))
        values = self._measure(row, usable) if self._pass_rate else self._vote(usable)
        calls = [call for outcome in outcomes for call in outcome.calls]
        made = Made(rows=[self._row(row, values, calls)])
        made.notes = [
            reply_failure(row, f"#{number}", outcome) for number, outcome in enumerate(outcomes) if outcome.problem
        ]
        return made

    def _vote(self, usable: Sequence[Outcome]) -> dict[str, Any]:
        """The majority of each column; the label that came first wins a tie, so that equal replies vote equally."""
        values: dict[str, Any] = {}
        ballots = [outcome.parsed.items[0] for outcome in usable if outcome.parsed is not None]
        for name in self._spec.output.columns:
            counts = Counter(canonical_json(ballot[name]) for ballot in ballots)
            winner, count = counts.most_common(1)[0]
            values[name] = next(ballot[name] for ballot in ballots if canonical_json(ballot[name]) == winner)
            if self._spec.votes > 1:
                values[f"{name}_agreement"] = count / len(ballots)
        if self._spec.output.reasoning and usable[0].parsed is not None:
            values[self._spec.output.reasoning] = usable[0].parsed.reasoning
        return values

    def _measure(self, row: Mapping[str, Any], usable: Sequence[Outcome]) -> dict[str, Any]:
        """The share of usable answers that agree with the reference."""
        spec = self._pass_rate
        assert spec is not None  # the caller looked
        reference = row[spec.reference]
        answers = [next(iter(outcome.parsed.items[0].values())) for outcome in usable if outcome.parsed is not None]
        agreeing = sum(_agrees(answer, reference, spec.compare) for answer in answers)
        return {spec.column: agreeing / len(answers)}

    def _row(self, row: Mapping[str, Any], values: Mapping[str, Any], calls: Sequence[str]) -> dict[str, Any]:
        made = {name: row[name] for name in self._carried} | dict(values)
        return made | lineage(row, row[ID], calls)

    def _failed(self, row: Mapping[str, Any], error: RowError) -> Made:
        made = Made(errors=[error])
        if self._spec.on_error == "null":
            made.rows.append(self._row(row, dict.fromkeys(self._added), error.calls))
        return made


def _agrees(answer: object, reference: object, compare: str) -> bool:
    given, expected = str(answer).strip().casefold(), str(reference).strip().casefold()
    if compare == "contains":
        return expected in given
    if compare == "number":
        numbers = re.findall(r"-?\d+(?:\.\d+)?", given.replace(",", ""))
        wanted = re.findall(r"-?\d+(?:\.\d+)?", expected.replace(",", ""))
        return bool(numbers and wanted) and float(numbers[-1]) == float(wanted[-1])
    return given == expected
