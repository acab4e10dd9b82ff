"""The side table `summary` of an evaluation: means, intervals and differences from the baseline, by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from bqbuild.core.ids import row_id
from bqbuild.core.records import ID, ROOTS
from bqbuild.train.statistics import (
    Interval,
    mean_interval,
    paired_difference,
    proportion_interval,
    standard_error,
)

MEASURES = ("correct", "gold_logprob")
"""What is compared with the baseline, question by question."""

FIGURES = (
    "accuracy",
    "accuracy_stderr",
    "accuracy_low",
    "accuracy_high",
    "chance",
    "gold_logprob",
    "gold_logprob_stderr",
    "gold_logprob_low",
    "gold_logprob_high",
    "gold_probability",
    *(f"{name}_difference{bound}" for name in ("accuracy", "gold_logprob") for bound in ("", "_low", "_high")),
)
"""Columns of the summary; bounds are those of 95 % intervals. `chance` is what guessing would score."""

Row = Mapping[str, Any]


def summary_schema(by: Mapping[str, pa.DataType]) -> pa.Schema:
    """The schema of the summary of scores that are grouped by these columns."""
    return pa.schema(
        [
            ("model", pa.string()),
            ("grouping", pa.string()),
            ("benchmark", pa.string()),
            *by.items(),
            ("n", pa.int64()),
            *((name, pa.float64()) for name in FIGURES),
            (ID, pa.string()),
            (ROOTS, pa.list_(pa.string())),
        ]
    )


def summarise(rows: Sequence[Row], by: Sequence[str], baseline: str | None) -> list[dict[str, Any]]:
    """One row a model and group; `rows` are scores with `model`, `benchmark`, `question_id` and the columns `by`.

    Groups are everything (`grouping` is "all"), each benchmark, each `by` column alone, all of them together, and
    these by benchmark; the columns that a group does not go by are NULL.
    """
    made: list[dict[str, Any]] = []
    for columns in groupings(by):
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(row_id(*(row[name] for name in columns)), []).append(row)
        for group in groups.values():
            made += _group_rows(group, columns, by, baseline)
    return made


def groupings(by: Sequence[str]) -> list[tuple[str, ...]]:
    """The sets of columns that a summary groups by."""
    sets = [(), ("benchmark",), *((name,) for name in by), tuple(by), ("benchmark", *by)]
    return list(dict.fromkeys(sets))


def _group_rows(
    group: Sequence[Row], columns: Sequence[str], by: Sequence[str], baseline: str | None
) -> list[dict[str, Any]]:
    keys = {name: group[0][name] if name in columns else None for name in ("benchmark", *by)}
    grouping = ", ".join(columns) or "all"
    models: dict[str, list[Row]] = {}
    for row in sorted(group, key=lambda row: (row["benchmark"], row["question_id"])):
        models.setdefault(row["model"], []).append(row)
    made: list[dict[str, Any]] = []
    for model, own in models.items():
        figures = _figures(own)
        if baseline is not None and model != baseline:
            figures |= _differences(own, models[baseline])
        key = {"model": model, "grouping": grouping, **keys}
        made.append({**key, "n": len(own), **figures, ID: row_id("summary", *key.values()), ROOTS: []})
    return made


def _figures(rows: Sequence[Row]) -> dict[str, float | None]:
    correct = [row["correct"] for row in rows]
    likelihood = [row["gold_logprob"] for row in rows]
    return {
        **_named("accuracy", proportion_interval(correct)),
        "accuracy_stderr": standard_error(correct),
        "chance": sum(1 / row["n_choices"] for row in rows) / len(rows),
        **_named("gold_logprob", mean_interval(likelihood)),
        "gold_logprob_stderr": standard_error(likelihood),
        "gold_probability": sum(row["gold_probability"] for row in rows) / len(rows),
    }


def _differences(rows: Sequence[Row], baseline: Sequence[Row]) -> dict[str, float | None]:
    """Both are in the order of the questions, and every LLM is asked the same ones."""
    figures: dict[str, float | None] = {}
    for name, measure in zip(("accuracy", "gold_logprob"), MEASURES, strict=True):
        difference = paired_difference([row[measure] for row in rows], [row[measure] for row in baseline])
        figures.update(_named(f"{name}_difference", difference))
    return figures


def _named(name: str, interval: Interval) -> dict[str, float | None]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
