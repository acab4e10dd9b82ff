"""Diversity of what was synthesised, before any filter: how much questions of a method or grade repeat themselves."""

from __future__ import annotations

import pyarrow as pa

from bqbuild.quality.diversity import compression_ratio, distinct_n, entropy, self_similarity

COLUMNS = ["method", "grade", "discipline", "seed_id", "question"]


def diversity(qa_raw: pa.Table) -> pa.Table:
    """One row for all pairs, one a method, one a grade."""
    rows = qa_raw.select(COLUMNS).to_pylist()
    groups = {("all", "all"): rows}
    for column in ("method", "grade"):
        for row in rows:
            groups.setdefault((column, row[column]), []).append(row)
    return pa.Table.from_pylist([_measures(*name, groups[name]) for name in sorted(groups)], schema=_SCHEMA)


_SCHEMA = pa.schema(
    [
        ("grouped_by", pa.string()),
        ("group_name", pa.string()),
        ("pairs", pa.int64()),
        ("seeds", pa.int64()),
        ("distinct_questions", pa.float64()),
        ("distinct_words", pa.float64()),
        ("distinct_bigrams", pa.float64()),
        ("nearest_similarity", pa.float64()),
        ("compression_ratio", pa.float64()),
        ("discipline_entropy", pa.float64()),
    ]
)


def _measures(grouped_by: str, group_name: str, rows: list[dict[str, str]]) -> dict[str, object]:
    questions = [row["question"] for row in rows]
    return {
        "grouped_by": grouped_by,
        "group_name": group_name,
        "pairs": len(rows),
        "seeds": len({row["seed_id"] for row in rows}),
        "distinct_questions": round(len(set(questions)) / max(len(questions), 1), 4),
        "distinct_words": round(distinct_n(questions, 1), 4),
        "distinct_bigrams": round(distinct_n(questions, 2), 4),
        "nearest_similarity": round(self_similarity(questions, size=2), 4),
        "compression_ratio": round(compression_ratio(questions), 4),
        "discipline_entropy": round(entropy(row["discipline"] for row in rows), 4),
    }
