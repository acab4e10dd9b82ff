"""C1: where nothing changed, nothing is called, queried or written."""

from __future__ import annotations

from pathlib import Path

from tests.space import Space, statuses


def test_c1_a_second_run_makes_no_call_and_builds_no_node(built: Space) -> None:
    results = built.run()
    assert built.sent == 0
    assert set(statuses(results).values()) == {"cached"}


def test_c1_a_second_run_writes_no_table_trace_or_pointer(built: Space) -> None:
    before = _files(built.root / ".bqbuild")
    built.run()
    assert _files(built.root / ".bqbuild") == before


def test_c1_a_table_that_is_gone_is_noticed_and_made_again_without_a_call(built: Space) -> None:
    digest = built.digests()["answers"]
    for file in (built.root / ".bqbuild").rglob(f"{digest}/*.parquet"):
        file.unlink()
    results = built.run()
    assert statuses(results)["answers"] == "success"
    assert built.sent == 0
    assert built.digests()["answers"] == digest


def _files(store: Path) -> dict[str, int]:
    kept = ("tables", "traces", "environments", "segments")
    return {
        str(path.relative_to(store)): path.stat().st_mtime_ns
        for path in store.rglob("*")
        if path.is_file() and any(part in kept for part in path.parts)
    }
