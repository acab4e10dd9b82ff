from __future__ import annotations

import json
import re
import subprocess
import sys

import duckdb
import pytest

from tests.cli.conftest import Bqbuild
from tests.llm_server import Fault, LlmServer
from tests.space import Space


def test_a_run_reports_on_stderr_and_leaves_stdout_alone(bqbuild: Bqbuild, capitals: Space) -> None:
    done = bqbuild("run")
    assert done.code == 0
    assert done.out == ""
    assert re.search(r"success +questions +synthesize +8 rows · 8 new, 0 cached calls", done.err)
    assert "5 success · 24 new, 0 cached calls" in done.err
    assert "$0.000" in done.err


def test_nothing_to_do_is_one_line(bqbuild: Bqbuild, built: Space, llm_server: LlmServer) -> None:
    llm_server.clear()
    done = bqbuild("run")
    assert done.code == 0
    assert re.fullmatch(r"Nothing to do: 5 models are up to date \([\d.]+ s\)\.\n", done.err)
    assert not llm_server.requests


def test_json_is_what_run_results_holds(bqbuild: Bqbuild, capitals: Space) -> None:
    printed = bqbuild("run", "--json", "--quiet")
    assert printed.err == ""
    document = printed.json()
    assert document.pop("succeeded") is True
    assert document == json.loads(capitals.read(".bqbuild/dev/run_results.json"))
    kept = {result["name"]: result for result in document["results"]}["kept"]
    assert {"name", "kind", "status", "reason", "rows", "calls", "tokens", "cost", "seconds", "table"} <= kept.keys()
    assert document["totals"]["calls"] == {"new": 24, "cached": 0, "failed": 0}
    assert "notes" not in {result["name"] for result in document["results"]}


def test_rows_without_an_answer_are_exit_1_and_sent_again(
    bqbuild: Bqbuild, capitals: Space, llm_server: LlmServer
) -> None:
    capitals.edit("project/profiles.yml", "retries: 6", "retries: 0")
    llm_server.fault = lambda body, number: Fault(status=500) if number == 1 else None
    done = bqbuild("run", "-s", "+questions")
    assert done.code == 1
    assert "partial" in done.err
    assert "failed: questions" in done.err
    again = bqbuild("run", "-s", "+questions")
    assert again.code == 0
    assert "1 new, 7 cached calls" in again.err


def test_an_error_names_the_model_and_exits_with_1(bqbuild: Bqbuild, capitals: Space) -> None:
    capitals.write("models/broken.sql", "select nothing_like_this from {{ ref('clean_notes') }}")
    done = bqbuild("run", "-s", "+broken", "--quiet")
    assert done.code == 1
    assert "models/broken.sql" in done.err
    assert "nothing_like_this" in done.err
    assert "failed: broken" in done.err


def test_a_missing_paid_parent_is_a_usage_error_with_the_way_out(bqbuild: Bqbuild, capitals: Space) -> None:
    done = bqbuild("run", "-s", "kept")
    assert done.code == 2
    assert "--select +kept" in done.err


def test_full_refresh_builds_again_and_pays_nothing(bqbuild: Bqbuild, built: Space, llm_server: LlmServer) -> None:
    llm_server.clear()
    done = bqbuild("run", "--full-refresh")
    assert done.code == 0
    assert "5 success · 0 new, 24 cached calls" in done.err
    assert not llm_server.requests


def test_warnings_of_the_project_are_told_with_their_place(bqbuild: Bqbuild, capitals: Space) -> None:
    capitals.edit("models/models.yml", "matrix: {grade:", "matrix: {unread: [1], grade:")
    done = bqbuild("run", "-s", "clean_notes")
    assert done.code == 0
    assert re.search(r"warning: models/models\.yml:\d+:\d+: .*unread", done.err)


def test_no_secret_is_ever_printed(
    bqbuild: Bqbuild, capitals: Space, llm_server: LlmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_API_KEY", "sk-very-secret")
    llm_server.api_key = "another"  # and the server says back which key it was sent
    done = bqbuild("run")
    assert done.code == 1
    assert "sk-very-secret" not in done.out + done.err
    checked = bqbuild("debug")
    assert checked.code == 1
    assert "sk-very-secret" not in checked.out + checked.err


def test_every_run_leaves_a_log_of_events(bqbuild: Bqbuild, capitals: Space) -> None:
    assert bqbuild("run", "-q", "-s", "clean_notes").code == 0
    (log,) = (capitals.root / ".bqbuild/dev/logs").glob("*-run-*.jsonl")
    entries = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert entries[0]["event"] == "RunStarted"
    assert entries[-1]["event"] == "RunFinished"
    assert entries[-1]["statuses"] == {"notes": "success", "clean_notes": "success"}
    finished = [entry["result"]["name"] for entry in entries if entry["event"] == "NodeFinished"]
    assert finished == ["notes", "clean_notes"]


def test_a_run_with_nothing_to_do_shows_what_others_moved_meanwhile(bqbuild: Bqbuild, built: Space) -> None:
    assert bqbuild("run").code == 0
    with built.session() as session:
        session.store.environments.move("capitals/other", session.pointers())
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    left = built.root / ".bqbuild" / "dev" / f".warehouse.duckdb.{killed.pid}"
    left.touch()
    assert "Nothing to do" in bqbuild("run").err
    with duckdb.connect(str(built.root / ".bqbuild" / "dev" / "warehouse.duckdb"), read_only=True) as connection:
        assert connection.sql("select count(*) from other.kept").fetchall() == [(8,)]
    assert not left.exists()
