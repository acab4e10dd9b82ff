"""D2: a table appears whole or not at all, and two runs at once on one project are safe."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.space import Space

RUN = [sys.executable, "-m", "bqbuild.cli.main", "run"]


def test_d2_two_runs_at_once_pay_once_and_agree(capitals: Space) -> None:
    capitals.server.delay = 0.05
    environment = {**os.environ, "LLM_URL": capitals.server.url}
    runs = [
        subprocess.Popen(RUN, cwd=capitals.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0].decode() for process in runs]
    assert [process.returncode for process in runs] == [0, 0], outputs
    assert len(capitals.server.requests) == 24
    assert capitals.rows("select count(*) as n from kept")[0]["n"] == 8
