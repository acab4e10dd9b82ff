"""The judge of a filter: an LLM looks at each row, and its verdict becomes columns of a small table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bqbuild.config.prompts import RenderError
from bqbuild.config.specs import FilterRule
from bqbuild.core.records import ID, Node
from bqbuild.nodes.base import BuildContext, Made, RowProgram, RowSteps, Task
from bqbuild.nodes.conversation import Conversation, open_conversation
from bqbuild.nodes.llm_rows import lineage, output_fields, prompt_row, render_failure, reply_failure, with_lineage


def judge_program(node: Node, rule: FilterRule, ctx: BuildContext) -> RowProgram:
    """A program that makes, for each row, the judge's columns under the row's own id; no row for no verdict."""
    judge = rule.judge
    assert judge is not None  # the caller picked a judge rule
    conversation = open_conversation(ctx.project, judge)
    return JudgeProgram(node, rule.name, conversation)


class JudgeProgram:
    """One judge rule for the rows of a filter."""

    def __init__(self, node: Node, rule: str, conversation: Conversation) -> None:
        self._rule = rule
        self._conversation = conversation
        self.schema = with_lineage(output_fields(conversation.output), node.where)

    def tasks(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Task]]:
        """One task a row; errors name the rule as their cell."""
        return [[Task(row[ID], self._rule, self._steps(row))] for row in rows]

    def settle(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The filter applies `accept`: it has the row as well."""
        return rows

    def _steps(self, row: Mapping[str, Any]) -> RowSteps:
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
