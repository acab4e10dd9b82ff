"""Predicates and queries over rows say the same wherever they are asked."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from bqbuild.nodes.predicates import RowPredicate
from bqbuild.nodes.query import Stream, query

ROOT = Path(__file__).parents[2]


def hour_of_an_evening(scratch: Path) -> tuple[list[bool | None], list[dict[str, int]]]:
    """What a predicate and a query make of eight in the evening in London."""
    rows = pa.table({"seen": pa.array([datetime(2020, 1, 1, 20, tzinfo=UTC)], pa.timestamp("us", "UTC"))})
    matches = RowPredicate("hour(seen) = 20 and seen::date = date '2020-01-01'", None).values(rows)
    stream = Stream(rows.schema, rows.to_batches())
    return matches, query(
        "SELECT hour(seen) AS hour FROM rows", {"rows": stream}, scratch, what="", where=None
    ).to_pylist()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_the_time_zone_of_the_machine_does_not_matter(tmp_path: Path, zone: str) -> None:
    code = (
        "from pathlib import Path; from tests.nodes.test_predicates import hour_of_an_evening;"
        f"print(hour_of_an_evening(Path({str(tmp_path)!r})))"
    )
    # a process of its own: DuckDB looks at the zone once
    environment = {**os.environ, "TZ": zone, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "([True], [{'hour': 20}])"
