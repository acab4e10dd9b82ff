"""A filter whose rows stream: row rules and judges, a row at a time, up to the first rule that compares rows.

    row rules ─ judge ┆ row rules ─ judge ┆ … ┆ row rules        one program between two bars

The whole-table form of the same rules is `nodes.filter`; both take their rules from `nodes.filter_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from bqbuild.config.specs import FilterRule
from bqbuild.core.records import ID, LINEAGE_COLUMNS, Node, Table
from bqbuild.nodes.base import BuildContext, Made, RowProgram, RowSteps, Task
from bqbuild.nodes.filter import streaming_rules
from bqbuild.nodes.filter_rules import RowRule, RuleSite, open_rule
from bqbuild.nodes.judge import JudgeProgram, judge_program, verdict_reason
from bqbuild.nodes.predicates import RowPredicate
from bqbuild.nodes.query import mentioned
from bqbuild.nodes.rejects import REASON, RULE, rejects_schema
from bqbuild.store.types import columns_of

_VERDICT = "_bq_verdict"
"""Where a row keeps its judge's columns until they are looked at; no column of a table."""


def filter_programs(
    node: Node, input_schema: pa.Schema, inputs: Mapping[str, Table], ctx: BuildContext
) -> list[RowProgram]:
    """The programs that a row goes through, in order; one at least. Raises BqError."""
    numbers = list(range(streaming_rules(node)))
    programs: list[RowProgram] = []
    while numbers or not programs:
        rules: list[tuple[FilterRule, RowRule]] = []
        judge: FilterJudge | None = None
        while numbers and judge is None:
            number = numbers.pop(0)
            rule, where = node.spec.rules[number], node.places.get(f"rules.{number}", node.where)
            if rule.judge:
                judge = FilterJudge(node, rule, input_schema, ctx)
            else:
                site = RuleSite(rule, where, columns_of(input_schema), inputs, ctx.store.tables)
                rules.append((rule, open_rule(site)))
        programs.append(FilterProgram(input_schema, rules, judge))
    return programs


class FilterProgram:
    """Some row rules, then a judge or none, for rows that keep their schema."""

    def __init__(
        self, schema: pa.Schema, rules: Sequence[tuple[FilterRule, RowRule]], judge: FilterJudge | None
    ) -> None:
        self.schema = schema
        self.sides: Mapping[str, pa.Schema] = {"rejects": rejects_schema(schema)}
        self._rules = rules
        self._judge = judge

    def tasks(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Task]]:
        """One task a row (of one that a rule rejects, to say so); errors name the judge as their cell."""
        rejected = self._rejected(rows)
        asks = self._judge.name if self._judge else ""
        return [[Task(row[ID], asks, self._steps(row, rejected.get(number)))] for number, row in enumerate(rows)]

    def settle(self, rows: list[dict[str, Any]]) -> Made:
        """Apply the judge's `accept`."""
        return Made(rows) if self._judge is None else self._judge.settle(rows)

    def _rejected(self, rows: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
        """By position, the rows that a rule rejects, as the rejects have them."""
        rejected: dict[int, dict[str, Any]] = {}
        if not self._rules or not rows:
            return rejected
        batch = pa.RecordBatch.from_pylist(list(rows), schema=self.schema)
        alive = list(range(len(rows)))
        for rule, opened in self._rules:
            reasons = opened.reasons(batch.select(list(opened.columns)).take(pa.array(alive, pa.int64())))
            for position, reason in zip(alive, reasons, strict=True):
                if reason is not None:
                    rejected[position] = {**rows[position], RULE: rule.name, REASON: reason}
            alive = [position for position in alive if position not in rejected]
        return rejected

    def _steps(self, row: Mapping[str, Any], rejected: dict[str, Any] | None) -> RowSteps:
        if rejected is not None:
            return Made(sides={"rejects": [rejected]})
        if self._judge is None:
            return Made([dict(row)])
        return (yield from self._judge.steps(row))


class FilterJudge:
    """A judge over rows that stream: it asks for verdicts, and looks at many of them at a time."""

    def __init__(self, node: Node, rule: FilterRule, schema: pa.Schema, ctx: BuildContext) -> None:
        assert rule.judge is not None  # the caller picked a judge rule
        self.name = rule.name
        self._program: JudgeProgram = judge_program(node, rule, ctx)
        number = node.spec.rules.index(rule)
        self._accept = RowPredicate(
            rule.judge.accept, node.places.get(f"rules.{number}", node.where), what=f"rule `{rule.name}`"
        )
        self._made = [field for field in self._program.schema if field.name not in LINEAGE_COLUMNS]
        taken = {field.name.lower() for field in self._made}
        names = set(mentioned(rule.judge.accept, schema.names))
        read = [field for field in schema if field.name in names and field.name.lower() not in taken]
        self._seen = pa.schema([*read, *self._made])

    def steps(self, row: Mapping[str, Any]) -> RowSteps:
        """Ask about one row, which goes on with its verdict; a reply that cannot be used rejects it."""
        made = yield from self._program.steps(row)
        if not made.errors:
            return Made([{**row, _VERDICT: made.rows[0]}])
        reason = f"no usable verdict: {made.errors[0].reason}"
        return Made(errors=made.errors, sides={"rejects": [{**row, RULE: self.name, REASON: reason}]})

    def settle(self, rows: list[dict[str, Any]]) -> Made:
        """Rows whose verdict is accepted go on as they came; the others are rejects."""
        if not rows:
            return Made()
        verdicts = [row.pop(_VERDICT) for row in rows]
        seen = [{**row, **verdict} for row, verdict in zip(rows, verdicts, strict=True)]
        accepted = self._accept.mask(pa.Table.from_pylist(seen, schema=self._seen))
        made = Made()
        names = [field.name for field in self._made]
        for row, verdict, is_accepted in zip(rows, verdicts, accepted, strict=True):
            if is_accepted:
                made.rows.append(row)
            else:
                reason = verdict_reason(verdict, names)
                made.sides.setdefault("rejects", []).append({**row, RULE: self.name, REASON: reason})
        return made
