"""Ctrl-C stops at once, whatever goes on in threads, and keeps every answer that came."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from tests.llm_server import Fault
from tests.space import Space

RUN = [sys.executable, "-m", "bqbuild.cli.main", "run"]


def _interrupted(space: Space, requests: int) -> subprocess.CompletedProcess[str]:
    run = subprocess.Popen(
        RUN, cwd=space.root, env={**os.environ, "LLM_URL": space.server.url}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(space.server.requests) < requests and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(1.0)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=30)
    return subprocess.CompletedProcess(RUN, run.returncode, "", errors)


def test_an_interrupted_run_keeps_its_answers(capitals: Space) -> None:
    capitals.server.fault = lambda body, number: Fault(delay=60) if number > 5 else None
    done = _interrupted(capitals, 8)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    capitals.server.fault = lambda body, number: None
    capitals.server.clear()
    capitals.run()
    assert len(capitals.server.requests) == 24 - 5


def test_an_interrupt_does_not_wait_for_a_thread_and_publishes_what_was_done(capitals: Space) -> None:
    capitals.write("models/slow.py", "import time\n\n\ndef nap(batch):\n    time.sleep(60)\n    return batch\n")
    text = capitals.read("models/models.yml")
    capitals.write("models/models.yml", text + "  - {name: napped, kind: python, from: kept, function: 'slow:nap'}\n")
    done = _interrupted(capitals, 24)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert capitals.rows("select count(*) as n from kept") == [{"n": 8}]
