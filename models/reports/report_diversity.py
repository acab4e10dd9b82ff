"""Diversity of what was synthesised, before any filter: how much the pairs of each method and grade repeat themselves."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

_WORD = re.compile(r"[\u4e00-\u9fff]|\w+")


def diversity(qa_raw: pa.Table) -> pa.Table:
    """One row for all pairs, one a method, one a grade."""
    rows = qa_raw.select(["method", "grade", "discipline", "seed_id", "question"]).to_pylist()
    groups = {("all", "all"): rows}
    for column in ("method", "grade"):
        for row in rows:
            groups.setdefault((column, row[column]), []).append(row)
    return pa.Table.from_pylist([_measures(*name, groups[name]) for name in sorted(groups)], schema=_SCHEMA)


_SCHEMA = pa.schema(
    [
        ("grouped_by", pa.string()),
        ("group", pa.string()),
        ("pairs", pa.int64()),
        ("seeds", pa.int64()),
        ("distinct_questions", pa.float64()),
        ("distinct_words", pa.float64()),
        ("distinct_bigrams", pa.float64()),
        ("discipline_entropy", pa.float64()),
        ("nearest_similarity", pa.float64()),
    ]
)


def _measures(grouped_by: str, group: str, rows: list[dict[str, str]]) -> dict[str, object]:
    words = [_WORD.findall(row["question"].lower()) for row in rows]
    return {
        "grouped_by": grouped_by,
        "group": group,
        "pairs": len(rows),
        "seeds": len({row["seed_id"] for row in rows}),
        "distinct_questions": _share_distinct(" ".join(each) for each in words),
        "distinct_words": _share_distinct(word for each in words for word in each),
        "distinct_bigrams": _share_distinct(pair for each in words for pair in zip(each, each[1:], strict=False)),
        "discipline_entropy": _entropy(row["discipline"] for row in rows),
        "nearest_similarity": _nearest_similarity([frozenset(each) for each in words]),
    }


def _share_distinct(items: Iterable[object]) -> float:
    counts = Counter(items)
    return round(len(counts) / max(counts.total(), 1), 4)


def _entropy(labels: Iterable[str]) -> float:
    """In bits."""
    counts = Counter(labels)
    total = counts.total()
    return round(-math.fsum(n / total * math.log2(n / total) for n in sorted(counts.values())), 4)


def _nearest_similarity(word_sets: list[frozenset[str]], at_most: int = 500) -> float:
    """Mean over pairs of the Jaccard similarity to the most similar other one; the first `at_most` in sorted order."""
    chosen = sorted(word_sets, key=sorted)[:at_most]
    if len(chosen) < 2:
        return 0.0
    nearest = [max(_jaccard(a, b) for j, b in enumerate(chosen) if j != i) for i, a in enumerate(chosen)]
    return round(math.fsum(nearest) / len(nearest), 4)


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(len(a | b), 1)
