"""kind: filter. Ordered rules, each applied to the rows that passed those before it; the rejects are a table too.

Row rules (sql, language, quality, decontaminate) look at batches, dedup compares all rows, a judge asks an LLM. Only
positions, hashes and reasons are held in memory. Nothing depends on the order in which the input lies.

A row where a `sql` predicate is NULL is rejected. A row whose judge gave an unusable reply is rejected and recorded in
the side table `errors`; one whose judge gave no reply at all is in neither table until the next run asks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pyarrow as pa

from bqbuild.config.specs import DedupRule, FilterRule, JudgeRule
from bqbuild.core.errors import Where
from bqbuild.core.events import Counts, NodeProgress
from bqbuild.core.records import ID, LINEAGE_COLUMNS, Node, RowError, Table
from bqbuild.graph.ordering import check_order
from bqbuild.graph.predicates import parse_predicate
from bqbuild.nodes.base import BuildContext, Built
from bqbuild.nodes.errors import write_errors
from bqbuild.nodes.filter_rules import RuleSite, is_row_rule, open_rule, texts_of
from bqbuild.nodes.judge import judge_program, verdict_reason
from bqbuild.nodes.query import Stream, mentioned, query, quoted
from bqbuild.nodes.rejects import rejects_of, rejects_schema
from bqbuild.nodes.survivors import POSITION, Survivors, ids_at, positions_of
from bqbuild.store.base import Tables


@dataclass(frozen=True, slots=True)
class Streamed:
    """What became of rows that streamed through the first rules of a filter, up to its first dedup."""

    kept: Table
    rejects: Table
    errors: Sequence[RowError]
    missing: int


@dataclass(frozen=True, slots=True)
class _Work:
    """What applying one rule needs: the rule, its number and place, the rows, and the build around them."""

    node: Node
    number: int
    rule: FilterRule
    where: Where
    rows: Survivors
    inputs: Mapping[str, Table]
    ctx: BuildContext

    def site(self) -> RuleSite:
        """The rule and what it is applied to."""
        return RuleSite(self.rule, self.where, self.rows.table.columns, self.inputs, self.ctx.store.tables)

    def column(self, name: str) -> str:
        """The column as the input spells it. Raises BuildError where there is none."""
        return self.site().column(name)

    def ask(self, sql: str, streams: Mapping[str, Stream]) -> pa.Table:
        """Run SQL for the rule."""
        return query(sql, streams, self.ctx.scratch, what=f"rule `{self.rule.name}`", where=self.where)


class FilterKind:
    """Builds filters."""

    semantics = 1

    def build(self, node: Node, inputs: Mapping[str, Table], ctx: BuildContext) -> Built:
        """The rows that pass every rule; sides: `rejects`, and `errors` (of judges; empty without)."""
        rows, errors = _apply(node, inputs[node.spec.from_], inputs, ctx, first=0)
        return _built(node, rows, errors, ctx, None)

    def finish(self, node: Node, streamed: Streamed, inputs: Mapping[str, Table], ctx: BuildContext) -> Built:
        """Apply the rules that wait for whole inputs, and those after them, to rows that passed the others."""
        rows, errors = _apply(node, streamed.kept, inputs, ctx, first=streaming_rules(node))
        return _built(node, rows, [*streamed.errors, *errors], ctx, streamed)


def streaming_rules(node: Node) -> int:
    """How many of a filter's rules, from the first on, look at one row at a time: all before a dedup."""
    rules: Sequence[FilterRule] = node.spec.rules
    return next((number for number, rule in enumerate(rules) if rule.dedup), len(rules))


def _apply(
    node: Node, table: Table, inputs: Mapping[str, Table], ctx: BuildContext, *, first: int
) -> tuple[Survivors, list[RowError]]:
    """Apply the rules from `first` on to a whole table."""
    rows = Survivors(ctx.store.tables, table)
    errors: list[RowError] = []
    for number, rule in list(enumerate(node.spec.rules))[first:]:
        where = node.places.get(f"rules.{number}", node.where)
        work = _Work(node, number, rule, where, rows, inputs, ctx)
        if rule.judge:
            errors += _judge(work, rule.judge)
        else:
            _report(work, len(node.spec.rules))
            (_row_rule if is_row_rule(rule) else _dedup)(work)
    return rows, errors


def _built(
    node: Node, rows: Survivors, errors: Sequence[RowError], ctx: BuildContext, streamed: Streamed | None
) -> Built:
    """Write the tables; those who were rejected on the way come first."""
    tables = ctx.store.tables
    rejects = rejects_of(rows, [rule.name for rule in node.spec.rules])
    if streamed is not None:
        rejects = chain(tables.batches(streamed.rejects), rejects)
    sides = {
        "rejects": _write(tables, rejects_schema(rows.schema), rejects),
        "errors": write_errors(tables, errors),
    }
    missing = rows.set_aside_count + (streamed.missing if streamed else 0)
    return Built(_write(tables, rows.schema, rows.kept()), sides, incomplete=missing)


def _report(work: _Work, rules: int) -> None:
    # the counts of a filter with a judge are those of its calls, and the row engine's to tell
    if not any(rule.judge for rule in work.node.spec.rules):
        counts = Counts(rows=work.rows.count)
        work.ctx.emit(NodeProgress(work.node.name, counts, work.number, rules, "rules", work.rule.name))


def _dedup(work: _Work) -> None:
    rule = work.rule.dedup
    assert rule is not None
    columns = [work.column(name) for name in rule.columns]
    if rule.keep:
        check_order(rule.keep, work.where)
    repeats = _equal_rows(work, rule, columns) if rule.method == "exact" else _similar_rows(work, rule, columns)
    ids = ids_at(work.rows, np.array(list(repeats.values()), np.int64))
    positions = np.array(list(repeats), np.int64)
    work.rows.drop(work.number, positions, [f"duplicate of {ids[kept]}" for kept in repeats.values()])


def _equal_rows(work: _Work, rule: DedupRule, columns: Sequence[str]) -> dict[int, int]:
    """Positions of the rows that repeat another, and of the row kept in their place; NULLs are equal."""
    same = ", ".join(quoted(name) for name in columns)
    found = work.ask(
        f"SELECT {POSITION}, first_value({POSITION}) OVER same AS kept FROM rows"
        f" WINDOW same AS (PARTITION BY {same} ORDER BY {_preference(rule)})"
        " QUALIFY row_number() OVER same > 1",
        {"rows": work.rows.stream([ID, *columns, *mentioned(rule.keep or "", work.rows.schema.names)])},
    )
    return dict(zip(positions_of(found).tolist(), positions_of(found, "kept").tolist(), strict=True))


def _similar_rows(work: _Work, rule: DedupRule, columns: Sequence[str]) -> dict[int, int]:
    """The same for near-duplicates: two passes over the texts, the second only over those that may be any."""
    # rensa is a compiled library that only this rule needs
    from bqbuild.quality.dedup import NearDuplicates

    near = NearDuplicates(rule.threshold, rule.ngram, rule.permutations)
    for positions, batch in work.rows.batches(columns):
        near.sketch(positions, texts_of(batch))
    for positions, batch in work.rows.batches(columns, only=near.suspects()):
        near.remember(positions, texts_of(batch))
    order = work.ask(
        f"SELECT {POSITION} FROM rows ORDER BY {_preference(rule)}",
        {"rows": work.rows.stream([ID, *mentioned(rule.keep or "", work.rows.schema.names)])},
    )
    return dict(near.duplicates(positions_of(order)))


def _preference(rule: DedupRule) -> str:
    return f"{rule.keep}\n, {ID}" if rule.keep else ID


def _row_rule(work: _Work) -> None:
    rule = open_rule(work.site())
    for positions, batch in work.rows.batches(rule.columns):
        found = rule.reasons(batch)
        out = [number for number, reason in enumerate(found) if reason is not None]
        work.rows.drop(work.number, positions[out], [found[number] or "" for number in out])


def _judge(work: _Work, judge: JudgeRule) -> list[RowError]:
    """Ask the judge about every row still in; the errors are those rows that it could not judge."""
    parse_predicate(judge.accept, work.where)
    program = judge_program(work.node, work.rule, work.ctx)
    done = work.ctx.run_rows(program, work.rows.kept())
    verdicts = done.table.select(
        [name for name in done.table.column_names if name not in LINEAGE_COLUMNS or name == ID]
    )
    found = _not_accepted(work, judge, verdicts)
    unusable = {error.row_id: error for error in done.errors if error.answered}
    rejected: list[int] = []
    reasons: list[str] = []
    waiting: list[int] = []
    for row in found.to_pylist():
        if not row["_bq_unjudged"]:
            rejected.append(row[POSITION])
            reasons.append(verdict_reason(row, [name for name in verdicts.column_names if name != ID]))
        elif row["_bq_row"] in unusable:
            rejected.append(row[POSITION])
            reasons.append(f"no usable verdict: {unusable[row['_bq_row']].reason}")
        else:
            waiting.append(row[POSITION])
    work.rows.drop(work.number, np.array(rejected, np.int64), reasons)
    work.rows.set_aside(np.array(waiting, np.int64))
    return [replace(error, cell=error.cell or work.rule.name) for error in done.errors]


def _not_accepted(work: _Work, judge: JudgeRule, verdicts: pa.Table) -> pa.Table:
    """The rows that have no verdict or one that is not accepted, with the verdict's columns."""
    made = [name for name in verdicts.column_names if name != ID]
    taken = {name.lower() for name in made}
    own = [name for name in mentioned(judge.accept, work.rows.schema.names) if name.lower() not in taken and name != ID]
    columns = ", ".join(f"v.{quoted(name)}" for name in made)
    seen = ", ".join([columns, *(f"r.{quoted(name)}" for name in own)])
    return work.ask(
        f"SELECT {POSITION}, _bq_row, _bq_unjudged, {', '.join(quoted(name) for name in made)} FROM ("
        f"SELECT *, CASE WHEN _bq_unjudged THEN NULL ELSE ({judge.accept}\n)::BOOLEAN END AS _bq_accepted FROM ("
        f"SELECT r.{POSITION}, r.{ID} AS _bq_row, v.{ID} IS NULL AS _bq_unjudged, {seen}"
        f" FROM rows r LEFT JOIN verdicts v ON r.{ID} = v.{ID})) WHERE _bq_accepted IS NOT TRUE",
        {
            "rows": work.rows.stream([ID, *own]),
            "verdicts": Stream(verdicts.schema, verdicts.to_batches()),
        },
    )


def _write(tables: Tables, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Table:
    writer = tables.writer(schema)
    try:
        for batch in batches:
            writer.write(batch)
        return writer.commit()
    except BaseException:
        writer.abort()
        raise
