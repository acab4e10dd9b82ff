"""Ctrl-C lets calls end that are under way, the second one does not; threads are never waited for; answers are kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from tests.llm_server import Fault
from tests.space import Space

RUN = [sys.executable, "-m", "bqbuild.cli.main", "run"]


def _interrupted(
    space: Space, requests: int, times: int = 1, until: Callable[[Space], bool] = lambda space: True
) -> subprocess.CompletedProcess[str]:
    run = subprocess.Popen(
        RUN, cwd=space.root, env={**os.environ, "LLM_URL": space.server.url}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while (len(space.server.requests) < requests or not until(space)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for number in range(times):
        run.send_signal(signal.SIGINT)
        if number < times - 1:
            assert run.stderr is not None
            while "Ctrl-C again stops now" not in run.stderr.readline():
                assert run.poll() is None
    _, errors = run.communicate(timeout=30)
    return subprocess.CompletedProcess(RUN, run.returncode, "", errors)


def _has_five_answers(space: Space) -> bool:
    """Whether five answers are on disk."""
    return sum(path.read_bytes().count(b"\n") for path in space.root.glob(".bqbuild/**/journal-*.jsonl")) >= 5


def test_the_second_interrupt_stops_at_once_and_keeps_what_was_answered(capitals: Space) -> None:
    capitals.server.fault = lambda body, number: Fault(delay=60) if number > 5 else None
    done = _interrupted(capitals, 8, times=2, until=_has_five_answers)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    capitals.server.fault = lambda body, number: None
    capitals.server.clear()
    capitals.run()
    assert len(capitals.server.requests) == 24 - 5


def test_the_first_interrupt_waits_for_calls_that_are_under_way_and_sends_nothing_new(capitals: Space) -> None:
    capitals.edit("project/profiles.yml", "max_concurrency: 64", "max_concurrency: 3")
    capitals.server.fault = lambda body, number: Fault(delay=4) if number > 5 else None
    done = _interrupted(capitals, 8, until=_has_five_answers)
    assert done.returncode == 130
    assert "that are under way may end. Ctrl-C again stops now" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(capitals.server.requests) == 8
    capitals.server.fault = lambda body, number: None
    capitals.server.clear()
    capitals.run()
    assert len(capitals.server.requests) == 24 - 8


def test_an_interrupt_does_not_wait_for_a_thread_and_publishes_what_was_done(capitals: Space) -> None:
    nap = "import time\n\n\ndef nap(batch):\n    open('napping', 'w').close()\n    time.sleep(60)\n    return batch\n"
    capitals.write("models/slow.py", nap)
    text = capitals.read("models/models.yml")
    capitals.write("models/models.yml", text + "  - {name: napped, kind: python, from: kept, function: 'slow:nap'}\n")
    done = _interrupted(capitals, 24, until=lambda space: (space.root / "napping").exists())
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert capitals.rows("select count(*) as n from kept") == [{"n": 8}]
