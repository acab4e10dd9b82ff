"""D1: a reply is durable before its row counts; `kill -9` at any moment loses only what was in flight."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.llm_server import Fault, LlmServer
from tests.space import Space

RUN = [sys.executable, "-m", "bqbuild.cli.main", "run"]
CONCURRENCY = 2


@pytest.mark.parametrize("answered", [1, 5, 9, 14, 20, 23])
def test_d1_after_a_kill_no_answered_call_is_sent_again(tmp_path: Path, llm_server: LlmServer, answered: int) -> None:
    space = Space.copy("capitals", tmp_path / "killed", llm_server)
    space.edit("project/profiles.yml", "max_concurrency: 64", f"max_concurrency: {CONCURRENCY}")
    llm_server.fault = lambda body, number: Fault(delay=60) if number > answered else None
    killed = subprocess.Popen(
        RUN, cwd=space.root, env={**os.environ, "LLM_URL": llm_server.url}, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while len(llm_server.requests) <= answered and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(1.0)  # longer than a group commit takes, so that what was answered is durable
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    llm_server.clear()
    llm_server.fault = lambda body, number: None
    results = space.run()
    assert {result.status for result in results.values()} <= {"success", "cached"}
    assert len(llm_server.requests) == 24 - answered
    undisturbed = Space.copy("capitals", tmp_path / "undisturbed", llm_server)
    undisturbed.run()
    assert space.digests() == undisturbed.digests()


def test_d1_a_row_without_an_answer_is_asked_for_by_the_next_run_and_no_other(capitals: Space) -> None:
    capitals.edit("project/profiles.yml", "retries: 6", "retries: 0")
    capitals.server.fault = lambda body, number: Fault(status=500) if number == 3 else None
    results = capitals.run("clean_notes", "questions")
    assert results["questions"].status == "partial"
    assert results["questions"].counts.rows == 7
    assert results["questions"].counts.failed_calls == 1
    errors = capitals.rows("select reason, answered from questions__errors")
    assert errors == [{"reason": "server", "answered": False}]
    capitals.server.fault = lambda body, number: None
    results = capitals.run("clean_notes", "questions")
    assert capitals.sent == 1
    assert results["questions"].status == "success"
    assert results["questions"].counts.rows == 8
    assert not capitals.rows("select * from questions__errors")
