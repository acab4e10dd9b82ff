"""kind: filter. Ordered rules, each applied to the rows that passed those before it; the rejects are a table too.

Row rules (sql, language, quality, decontaminate) look at batches, dedup compares all rows, a judge asks an LLM. Only
positions, hashes and reasons are held in memory. Nothing depends on the order in which the input lies.

A row where a `sql` predicate is NULL is rejected. A row whose judge gave an unusable reply is rejected and recorded in
the side table `errors`; one whose judge gave no reply at all is in neither table until the next run asks again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from bqbuild.config.specs import DedupRule, FilterRule, FilterSpec, JudgeRule
from bqbuild.core.errors import BuildError, Where, did_you_mean
from bqbuild.core.events import Counts, NodeProgress
from bqbuild.core.records import ID, LINEAGE_COLUMNS, Node, RowError, Table
from bqbuild.graph.ordering import check_order
from bqbuild.graph.predicates import parse_predicate
from bqbuild.nodes.base import BuildContext, Built
from bqbuild.nodes.errors import write_errors
from bqbuild.nodes.judge import judge_program
from bqbuild.nodes.query import Stream, mentioned, query, quoted
from bqbuild.nodes.survivors import POSITION, Survivors, ids_at, positions_of
from bqbuild.quality.decontaminate import BenchmarkIndex
from bqbuild.quality.signals import quality_reason
from bqbuild.quality.words import flat_text
from bqbuild.store.base import Tables
from bqbuild.store.types import columns_of

RULE = "_bq_rule"
REASON = "_bq_reason"

MAX_QUOTED = 200
"""Characters of a judge's value that a reason quotes."""


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

    def column(self, name: str) -> str:
        """The column as the input spells it. Raises BuildError where there is none."""
        return _column(name, self.rows.table, f"rule `{self.rule.name}` reads", self.where)

    def ask(self, sql: str, streams: Mapping[str, Stream]) -> pa.Table:
        """Run SQL for the rule."""
        return query(sql, streams, self.ctx.scratch, what=f"rule `{self.rule.name}`", where=self.where)


class FilterKind:
    """Builds filters."""

    semantics = 1

    def build(self, node: Node, inputs: Mapping[str, Table], ctx: BuildContext) -> Built:
        """The rows that pass every rule; sides: `rejects`, and `errors` (of judges; empty without)."""
        spec: FilterSpec = node.spec
        rows = Survivors(ctx.store.tables, inputs[spec.from_])
        errors: list[RowError] = []
        for number, rule in enumerate(spec.rules):
            where = node.places.get(f"rules.{number}", node.where)
            work = _Work(node, number, rule, where, rows, inputs, ctx)
            if rule.judge:
                errors += _judge(work, rule.judge)
            else:
                _report(work, len(spec.rules))
                _RULES[rule.ways()[0]](work)
        sides = {
            "rejects": _write_rejects(ctx.store.tables, rows, spec.rules),
            "errors": write_errors(ctx.store.tables, errors),
        }
        return Built(_write(ctx.store.tables, rows.schema, rows.kept()), sides, incomplete=rows.set_aside_count)


def _report(work: _Work, rules: int) -> None:
    # the counts of a filter with a judge are those of its calls, and the row engine's to tell
    if not any(rule.judge for rule in work.node.spec.rules):
        counts = Counts(rows=work.rows.count)
        work.ctx.emit(NodeProgress(work.node.name, counts, work.number, rules, "rules", work.rule.name))


def _sql(work: _Work) -> None:
    text = work.rule.sql
    assert text is not None  # the caller picked the rule by its way
    # in the reasons its normal form, so that they are the same however it was written
    shown = parse_predicate(text, work.where).identity
    found = work.ask(
        f"SELECT {POSITION}, ok IS NULL AS is_null FROM (SELECT {POSITION}, ({text}\n)::BOOLEAN AS ok FROM rows)"
        " WHERE ok IS NOT TRUE",
        {"rows": work.rows.stream(mentioned(text, work.rows.schema.names))},
    )
    reasons = [f"`{shown}` is {'NULL' if is_null else 'false'}" for is_null in found.column("is_null").to_pylist()]
    work.rows.drop(work.number, positions_of(found), reasons)


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


def _decontaminate(work: _Work) -> None:
    rule = work.rule.decontaminate
    assert rule is not None
    columns = [work.column(name) for name in rule.columns]
    benchmarks = [
        (name, work.inputs[name], _benchmark_columns(rule.benchmark_columns, work, name)) for name in rule.against
    ]
    tables = work.ctx.store.tables
    index = BenchmarkIndex(
        rule.ngram,
        ((name, texts_of(batch)) for name, table, chosen in benchmarks for batch in tables.batches(table, chosen)),
    )
    _drop_by_reason(work, columns, lambda batch: index.reasons(texts_of(batch)))


def _benchmark_columns(wanted: Sequence[str], work: _Work, name: str) -> list[str]:
    """Those of the columns that this benchmark has: benchmarks differ, and one list serves them all."""
    names = {column.name.lower(): column.name for column in work.inputs[name].columns}
    found = [names[column.lower()] for column in wanted if column.lower() in names]
    if not found:
        has = ", ".join(work.inputs[name].user_columns)
        listed = ", ".join(f"`{column}`" for column in wanted)
        raise BuildError(
            f"rule `{work.rule.name}`: benchmark `{name}` has none of the columns {listed}",
            where=work.where,
            hint=f"it has {has}",
        )
    return found


def _language(work: _Work) -> None:
    rule = work.rule.language
    assert rule is not None
    # lingua is an extra, and 96 MB
    from bqbuild.quality.language import LanguageDetector

    try:
        detector = LanguageDetector(rule.allow)
    except BuildError as error:
        raise BuildError(f"rule `{work.rule.name}`: {error.message}", where=work.where, hint=error.hint) from error
    _drop_by_reason(work, [work.column(rule.column)], lambda batch: detector.reasons(texts_of(batch)[0]))


def _quality(work: _Work) -> None:
    rule = work.rule.quality
    assert rule is not None
    _drop_by_reason(
        work,
        [work.column(rule.column)],
        lambda batch: [quality_reason(text, rule) for text in texts_of(batch)[0]],
    )


def _drop_by_reason(
    work: _Work, columns: Sequence[str], reasons: Callable[[pa.RecordBatch], Sequence[str | None]]
) -> None:
    for positions, batch in work.rows.batches(columns):
        found = reasons(batch)
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
            reasons.append(_verdict(row, verdicts.column_names))
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


def _verdict(row: Mapping[str, Any], names: Iterable[str]) -> str:
    said = (
        f"{name} = {json.dumps(row[name], ensure_ascii=False, default=str)[:MAX_QUOTED]}"
        for name in names
        if name != ID
    )
    return "judged " + ", ".join(said)


def texts_of(batch: pa.RecordBatch) -> list[list[str]]:
    """The texts of a batch, one list a column; what JSON and lists hold, without their punctuation."""
    return [
        [flat_text(_parsed(value) if column.type == "json" else value) for value in values.to_pylist()]
        for column, values in zip(columns_of(batch.schema), batch.columns, strict=True)
    ]


def _parsed(value: str | None) -> Any:
    try:
        return None if value is None else json.loads(value)
    except (ValueError, RecursionError):
        return value


def _column(name: str, table: Table, reader: str, where: Where) -> str:
    names = {column.name.lower(): column.name for column in table.columns}
    if name.lower() not in names:
        has = ", ".join(table.user_columns)
        raise BuildError(
            f"{reader} `{name}`, which its input does not have",
            where=where,
            hint=did_you_mean(name, names.values()) or f"it has {has}",
        )
    return names[name.lower()]


def _write(tables: Tables, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Table:
    writer = tables.writer(schema)
    try:
        for batch in batches:
            writer.write(batch)
        return writer.commit()
    except BaseException:
        writer.abort()
        raise


def _write_rejects(tables: Tables, rows: Survivors, rules: Sequence[FilterRule]) -> Table:
    """The rejects: the input's user columns, the rule and the reason, then the lineage columns."""
    input_fields = [field for field in rows.schema if field.name not in (RULE, REASON)]
    user = [field for field in input_fields if field.name not in LINEAGE_COLUMNS]
    own = [field for field in input_fields if field.name in LINEAGE_COLUMNS]
    schema = pa.schema([*user, pa.field(RULE, pa.string()), pa.field(REASON, pa.string()), *own])
    names = np.array([rule.name for rule in rules], dtype=object)
    batches = (
        pa.RecordBatch.from_arrays(
            [
                *(batch.column(field.name) for field in user),
                pa.array(names[numbers], pa.string()),
                reasons,
                *(batch.column(field.name) for field in own),
            ],
            schema=schema,
        )
        for numbers, reasons, batch in rows.rejected()
    )
    return _write(tables, schema, batches)


_RULES: dict[str, Callable[[_Work], None]] = {
    "sql": _sql,
    "dedup": _dedup,
    "decontaminate": _decontaminate,
    "language": _language,
    "quality": _quality,
}
