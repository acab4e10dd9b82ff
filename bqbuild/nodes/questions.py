"""From the rows of a benchmark table to multiple-choice questions, and the choice of which are asked."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from bqbuild.config.specs import BenchmarkSpec, EvaluateSpec
from bqbuild.core.errors import BuildError, Where
from bqbuild.core.hashing import digest
from bqbuild.core.records import ID, ROOTS, Node, Table
from bqbuild.graph.predicates import parse_predicate
from bqbuild.nodes.base import BuildContext
from bqbuild.nodes.predicates import RowPredicate

SHORTEST = 2
"""Choices without which there is nothing to choose."""


@dataclass(frozen=True, slots=True)
class Item:
    """A row that is asked: all that was read of it, its choices, and the index of the gold one."""

    row: Mapping[str, Any]
    choices: tuple[str, ...]
    gold: int

    @property
    def id(self) -> str:
        """The id of the benchmark's row."""
        return str(self.row[ID])


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """What is asked of one benchmark, and which rows serve as examples."""

    name: str
    spec: BenchmarkSpec
    items: tuple[Item, ...]
    examples: tuple[Item, ...]


def read_questions(node: Node, number: int, table: Table, ctx: BuildContext) -> QuestionSet:
    """Read the benchmark of that number of an evaluate node.

    Rows are ranked by a hash of the seed and their id: the first `few_shot` are the examples and are not asked, the
    next `limit` are the questions; so the order of the table chooses nothing. Raises BuildError for a row that is no
    question, and where none is left to ask.
    """
    spec: EvaluateSpec = node.spec
    benchmark = spec.from_[number]
    where = node.places.get(f"from.{number}", node.where)
    items = [_item(row, benchmark, where) for row in _rows(node, benchmark, table, ctx, where)]
    ranked = sorted(items, key=lambda item: digest([spec.seed, item.id]))
    asked = ranked[spec.few_shot :][: benchmark.limit]
    if not asked:
        message = f"`{benchmark.model}` has {len(items)} questions, which leaves none to ask"
        raise BuildError(message, where=where, hint="look at `where`, `few_shot`, and the benchmark itself")
    return QuestionSet(benchmark.name or benchmark.model, benchmark, tuple(asked), tuple(ranked[: spec.few_shot]))


def _rows(
    node: Node, benchmark: BenchmarkSpec, table: Table, ctx: BuildContext, where: Where
) -> Iterator[dict[str, Any]]:
    """The rows that `where` lets through, with the columns that count."""
    wanted = {name.lower() for name in _columns(node, benchmark, ctx)}  # DuckDB does not mind case
    columns = [name for name in table.user_columns if name.lower() in wanted]
    missing = {benchmark.question, benchmark.choices, benchmark.answer} - set(columns)
    if missing:
        raise BuildError(f"`{benchmark.model}` has no column `{sorted(missing)[0]}`", where=where)
    opened = RowPredicate(benchmark.where, where) if benchmark.where else nullcontext()
    with opened as predicate:
        for batch in ctx.store.tables.batches(table, [*columns, ID, ROOTS]):
            rows: list[dict[str, Any]] = batch.to_pylist()
            if predicate is None:
                yield from rows
            else:
                yield from (row for row, passes in zip(rows, predicate.mask(batch), strict=True) if passes)


def _columns(node: Node, benchmark: BenchmarkSpec, ctx: BuildContext) -> set[str]:
    columns = {benchmark.question, benchmark.choices, benchmark.answer, *node.spec.by}
    if benchmark.where:
        columns |= parse_predicate(benchmark.where, node.where).columns
    if node.spec.prompt:
        columns |= set(ctx.project.prompts[node.spec.prompt].columns)
    return columns


def _item(row: Mapping[str, Any], benchmark: BenchmarkSpec, where: Where) -> Item:
    question = row[benchmark.question]
    if not isinstance(question, str) or not question.strip():
        raise _bad(row, benchmark, where, f"`{benchmark.question}` is empty")
    choices = _choices(row[benchmark.choices])
    if choices is None:
        raise _bad(row, benchmark, where, f"`{benchmark.choices}` is not a list of texts: {row[benchmark.choices]!r}")
    gold = _gold(row[benchmark.answer], choices)
    if gold is None:
        names = f"0 to {len(choices) - 1}, a letter, or one of the choices"
        raise _bad(row, benchmark, where, f"`{benchmark.answer}` is {row[benchmark.answer]!r}, not {names}")
    return Item(row, choices, gold)


def _bad(row: Mapping[str, Any], benchmark: BenchmarkSpec, where: Where, problem: str) -> BuildError:
    hint = "`where` of the benchmark leaves rows out; a SQL model before it can shape them"
    return BuildError(f"`{benchmark.model}`, row {row[ID]}: {problem[:200]}", where=where, hint=hint)


def _choices(value: object) -> tuple[str, ...] | None:
    """A list of texts or numbers, or the JSON text of one; None for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if not isinstance(value, list) or len(value) < SHORTEST:
        return None
    if not all(isinstance(choice, str | int | float) and not isinstance(choice, bool) for choice in value):
        return None
    texts = tuple(str(choice).strip() for choice in value)
    return texts if all(texts) else None


def _gold(value: object, choices: tuple[str, ...]) -> int | None:
    """The index of the gold choice: given as an index from 0, as a letter (A is the first), or as the choice's text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < len(choices) else None
    if not isinstance(value, str):
        return None
    text = value.strip()
    if choices.count(text) == 1:
        return choices.index(text)
    if text.isdecimal():
        return _gold(int(text), choices)
    if len(text) == 1 and text.upper() in string.ascii_uppercase:
        return _gold(string.ascii_uppercase.index(text.upper()), choices)
    return None
