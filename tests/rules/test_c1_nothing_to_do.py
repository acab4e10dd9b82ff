"""C1: where nothing changed, nothing is called, queried or written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bqbuild.run.fingerprint import SETTLED_NS
from tests.space import Space, statuses

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "duckdb", "pyarrow", "numpy", "sqlglot", "jinja2", "pydantic", "networkx", "aiohttp"}
HEAVY |= {"asyncio", "yaml"}


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


@pytest.fixture
def settled(built: Space) -> Space:
    """The project built, and looked at by every command, from the command line."""
    for command in (["run"], ["plan"]):
        _command(built, *command)
    # files that were just written are known by their content; once they have aged, that is noted, once
    written = max(path.stat().st_ctime_ns for path in built.root.rglob("*") if ".bqbuild" not in path.parts)
    while time.time_ns() - written <= SETTLED_NS:
        _command(built, "ls")
    _command(built, "ls")
    return built


@pytest.mark.parametrize("command", ["run", "build", "plan", "ls", "parse"])
def test_c1_nothing_heavy_is_imported_where_nothing_changed(command: str, settled: Space) -> None:
    done = _command(settled, command, python=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "bqbuild" in imported
    assert not imported & HEAVY


def test_c1_a_run_says_that_there_is_nothing_to_do_and_reports_every_model_as_cached(settled: Space) -> None:
    done = _command(settled, "run", "--json")
    assert "Nothing to do: 5 models are up to date" in done.stderr
    document = json.loads(done.stdout)
    assert document["totals"]["nodes"] == {"success": 0, "cached": 5, "partial": 0, "error": 0, "skipped": 0}
    assert document["totals"]["calls"] == {"new": 0, "cached": 0, "failed": 0}
    kept = json.loads((settled.root / ".bqbuild/dev/run_results.json").read_text("utf-8"))
    assert kept["results"] == document["results"]


def test_c1_what_is_remembered_of_the_project_and_what_is_read_report_the_same(
    settled: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (["ls", "--json"], ["plan", "--json", "--all"], ["run", "--json"]):
        remembered = _command(settled, *command).stdout
        manifest = (settled.root / ".bqbuild/dev/manifest.json").read_text("utf-8")
        monkeypatch.setenv("BQBUILD_NO_CACHE", "1")
        assert _without_time(_command(settled, *command).stdout) == _without_time(remembered)
        assert _without_time((settled.root / ".bqbuild/dev/manifest.json").read_text("utf-8")) == _without_time(
            manifest
        )
        monkeypatch.delenv("BQBUILD_NO_CACHE")


def test_c1_nothing_is_sent_and_no_file_is_touched_but_what_reports(settled: Space) -> None:
    sent, before = len(settled.server.requests), _all_files(settled.root)
    for command in (["run"], ["build"], ["plan"], ["ls"], ["parse"]):
        _command(settled, *command)
    assert len(settled.server.requests) == sent
    touched = {path for path, stat in _all_files(settled.root).items() if before.get(path) != stat}
    reports = {f".bqbuild/dev/{name}.json" for name in ("run_results", "manifest", "plan")}
    assert {path for path in touched if not path.startswith(".bqbuild/dev/logs/")} <= reports
    assert not before.keys() - _all_files(settled.root).keys()


def test_c1_a_table_that_is_gone_is_noticed_from_what_is_remembered(settled: Space) -> None:
    digest = settled.digests()["answers"]
    for file in (settled.root / ".bqbuild").rglob(f"{digest}/*.parquet"):
        file.unlink()
    assert json.loads(_command(settled, "plan", "--json", "--fast").stdout)["totals"]["nodes"]["build"] == 1
    results = {entry["name"]: entry for entry in json.loads(_command(settled, "run", "--json").stdout)["results"]}
    assert results["answers"]["status"] == "success"
    assert results["answers"]["calls"]["new"] == 0
    assert settled.digests()["answers"] == digest


def test_c1_data_that_changed_is_noticed_from_what_is_remembered(settled: Space) -> None:
    path = "project/sources/notes.jsonl"
    settled.write(path, settled.read(path) + '{"id": 99, "topic": "fog", "text": "Fog is a cloud on the ground."}\n')
    results = {entry["name"]: entry for entry in json.loads(_command(settled, "run", "--json").stdout)["results"]}
    assert {entry["status"] for entry in results.values()} == {"success"}
    assert results["questions"]["calls"]["new"] == 2


def test_c1_another_environment_is_not_taken_for_built(settled: Space) -> None:
    settled.edit("project/profiles.yml", "store: .bqbuild ", "environment: fresh\n    store: .bqbuild ")
    _command(settled, "ls")
    results = json.loads(_command(settled, "run", "--json").stdout)["results"]
    assert {entry["status"] for entry in results} == {"cached"}
    _command(settled, "show", "kept")


def test_c1_a_sql_model_that_changed_does_not_import_pandas_for_arrows_sake(built: Space, tmp_path: Path) -> None:
    _command(built, "run")
    (tmp_path / "lib" / "pandas").mkdir(parents=True)
    (tmp_path / "lib" / "pandas" / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()")
    built.write("models/plain.sql", "select id, ['a', 'b'] as words from {{ source('notes') }}")
    done = _command(built, "run", "--select", "plain", python=("-X", "importtime"), path=f"{tmp_path / 'lib'}:{ROOT}")
    assert "pyarrow" in done.stderr
    assert not (tmp_path / "imported").exists()


def _command(
    space: Space, *arguments: str, python: tuple[str, ...] = (), path: str = os.environ.get("PYTHONPATH", "")
) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own; it must succeed. `path` is where Python looks first."""
    done = subprocess.run(
        [sys.executable, *python, "-m", "bqbuild.cli.main", *arguments],
        cwd=space.root,
        env={**os.environ, "LLM_URL": space.server.url, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


def _without_time(text: str) -> list[str]:
    return [line for line in text.splitlines() if not any(f'"{key}"' in line for key in ("generated_at", "command"))]


def _all_files(root: Path) -> dict[str, tuple[int, int, int]]:
    """Every file of the project, its store and its artifacts, with what a write of it would change."""
    stats = ((path.relative_to(root).as_posix(), path.stat()) for path in root.rglob("*") if path.is_file())
    return {name: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in stats}


def _files(store: Path) -> dict[str, int]:
    kept = ("tables", "traces", "environments", "segments")
    return {
        str(path.relative_to(store)): path.stat().st_mtime_ns
        for path in store.rglob("*")
        if path.is_file() and any(part in kept for part in path.parts)
    }
