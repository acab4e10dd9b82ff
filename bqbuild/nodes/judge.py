"""The judge of a filter: an LLM looks at each row, and its verdict becomes columns of a small table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from bqbuild.config.prompts import RenderError
from bqbuild.config.specs import FilterRule
from bqbuild.core.records import ID, Node
from bqbuild.nodes.base import BuildContext, Made, RowSteps, Task
from bqbuild.nodes.conversation import Conversation, open_conversation
from bqbuild.nodes.llm_rows import lineage, output_fields, prompt_row, render_failure, reply_failure, with_lineage

MAX_QUOTED = 200
"""Characters of a judge's value that a reason quotes."""


def verdict_reason(row: Mapping[str, Any], names: Iterable[str]) -> str:
    """Why a row whose verdict was not accepted is rejected: the values of the judge's columns."""
    said = (f"{name} = {json.dumps(row[name], ensure_ascii=False, default=str)[:MAX_QUOTED]}" for name in names)
    return "judged " + ", ".join(said)


def judge_program(node: Node, rule: FilterRule, ctx: BuildContext) -> JudgeProgram:
    """A program that makes, for each row, the judge's columns under the row's own id; no row for no verdict."""
    judge = rule.judge
    assert judge is not None  # the caller picked a judge rule
    conversation = open_conversation(ctx.project, judge)
    return JudgeProgram(node, rule.name, conversation)


class JudgeProgram:
    """One judge rule for the rows of a filter."""

    sides: Mapping[str, pa.Schema] = MappingProxyType({})

    def __init__(self, node: Node, rule: str, conversation: Conversation) -> None:
        self._rule = rule
        self._conversation = conversation
        self.schema = with_lineage(output_fields(conversation.output), node.where)

    def tasks(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Task]]:
        """One task a row; errors name the rule as their cell."""
        return [[Task(row[ID], self._rule, self.steps(row))] for row in rows]

    def settle(self, rows: list[dict[str, Any]]) -> Made:
        """The filter applies `accept`: it has the row as well."""
        return Made(rows)

    def steps(self, row: Mapping[str, Any]) -> RowSteps:
        """Ask about one row: one row of the verdict's columns, or an error."""
        try:
            messages = self._conversation.messages(prompt_row(row, {}))
        except RenderError as error:
            return Made(errors=[render_failure(row, self._rule, error)])
        outcome = yield from self._conversation.hold(messages)
        if outcome.parsed is None or not outcome.parsed.items:
            return Made(errors=[reply_failure(row, self._rule, outcome)])
        values = dict(outcome.parsed.items[0])
        if self._conversation.output.reasoning:
            values[self._conversation.output.reasoning] = outcome.parsed.reasoning
        return Made(rows=[values | lineage(row, row[ID], outcome.calls)])
