"""The row rules of a filter (sql, language, quality, decontaminate): what each reads, and why it rejects a row.

One definition serves rows that stream and whole tables: a rule is a function of the row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bqbuild.config.specs import FilterRule
from bqbuild.core.errors import BuildError, Where, did_you_mean
from bqbuild.core.records import LINEAGE_COLUMNS, Column, Table
from bqbuild.graph.predicates import parse_predicate
from bqbuild.nodes.predicates import RowPredicate
from bqbuild.nodes.query import mentioned
from bqbuild.quality.decontaminate import BenchmarkIndex
from bqbuild.quality.signals import quality_reason
from bqbuild.quality.words import flat_text
from bqbuild.store.base import Tables
from bqbuild.store.types import columns_of

Reasons = Sequence[str | None]
"""For each row why it is rejected, or None."""


@dataclass(frozen=True, slots=True)
class RuleSite:
    """A rule where it is applied: to rows of these columns, beside these other inputs of the filter."""

    rule: FilterRule
    where: Where
    columns: Sequence[Column]
    inputs: Mapping[str, Table]
    tables: Tables

    def column(self, name: str) -> str:
        """The column as the input spells it. Raises BuildError where there is none."""
        names = {column.name.lower(): column.name for column in self.columns}
        if name.lower() not in names:
            has = ", ".join(column.name for column in self.columns if column.name not in LINEAGE_COLUMNS)
            raise BuildError(
                f"rule `{self.rule.name}` reads `{name}`, which its input does not have",
                where=self.where,
                hint=did_you_mean(name, names.values()) or f"it has {has}",
            )
        return names[name.lower()]


@dataclass(frozen=True, slots=True)
class RowRule:
    """A rule at work: `reasons` takes batches of `columns`, in that order."""

    columns: Sequence[str]
    reasons: Callable[[pa.RecordBatch], Reasons]


def is_row_rule(rule: FilterRule) -> bool:
    """Whether the rule looks at one row, without asking an LLM."""
    return rule.ways()[0] in _OPEN


def open_rule(site: RuleSite) -> RowRule:
    """The rule, ready for batches. Raises BuildError where it does not fit the input."""
    return _OPEN[site.rule.ways()[0]](site)


def _sql(site: RuleSite) -> RowRule:
    text = site.rule.sql
    assert text is not None  # the caller picked the rule by its way
    # in the reasons its normal form, so that they are the same however it was written
    shown = parse_predicate(text, site.where).identity
    predicate = RowPredicate(text, site.where, what=f"rule `{site.rule.name}`")
    said = {None: f"`{shown}` is NULL", False: f"`{shown}` is false", True: None}
    names = [column.name for column in site.columns]
    # a predicate that reads nothing still needs rows to be counted
    return RowRule(mentioned(text, names) or names[:1], lambda batch: [said[ok] for ok in predicate.values(batch)])


def _decontaminate(site: RuleSite) -> RowRule:
    rule = site.rule.decontaminate
    assert rule is not None
    columns = [site.column(name) for name in rule.columns]
    benchmarks = [
        (name, site.inputs[name], _benchmark_columns(rule.benchmark_columns, site, name)) for name in rule.against
    ]
    texts = (
        (name, texts_of(batch)) for name, table, chosen in benchmarks for batch in site.tables.batches(table, chosen)
    )
    index = BenchmarkIndex(rule.ngram, texts)
    return RowRule(columns, lambda batch: index.reasons(texts_of(batch)))


def _benchmark_columns(wanted: Sequence[str], site: RuleSite, name: str) -> list[str]:
    """Those of the columns that this benchmark has: benchmarks differ, and one list serves them all."""
    names = {column.name.lower(): column.name for column in site.inputs[name].columns}
    found = [names[column.lower()] for column in wanted if column.lower() in names]
    if not found:
        has = ", ".join(site.inputs[name].user_columns)
        listed = ", ".join(f"`{column}`" for column in wanted)
        raise BuildError(
            f"rule `{site.rule.name}`: benchmark `{name}` has none of the columns {listed}",
            where=site.where,
            hint=f"it has {has}",
        )
    return found


def _language(site: RuleSite) -> RowRule:
    rule = site.rule.language
    assert rule is not None
    # lingua is an extra, and 96 MB
    from bqbuild.quality.language import LanguageDetector

    try:
        detector = LanguageDetector(rule.allow)
    except BuildError as error:
        raise BuildError(f"rule `{site.rule.name}`: {error.message}", where=site.where, hint=error.hint) from error
    return RowRule([site.column(rule.column)], lambda batch: detector.reasons(texts_of(batch)[0]))


def _quality(site: RuleSite) -> RowRule:
    rule = site.rule.quality
    assert rule is not None
    return RowRule(
        [site.column(rule.column)], lambda batch: [quality_reason(text, rule) for text in texts_of(batch)[0]]
    )


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


_OPEN: dict[str, Callable[[RuleSite], RowRule]] = {
    "sql": _sql,
    "decontaminate": _decontaminate,
    "language": _language,
    "quality": _quality,
}
