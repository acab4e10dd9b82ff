"""C6: the store can be shared; two clones of a project that share one pay once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.llm_server import LlmServer
from tests.space import Space, statuses

RUN = [sys.executable, "-m", "bqbuild.cli.main", "run"]


def clone(name: str, tmp_path: Path, server: LlmServer) -> Space:
    """A clone of the project with its own environment in the shared store."""
    space = Space.copy("capitals", tmp_path / name, server)
    space.edit("project/profiles.yml", "store: .bqbuild ", f"store: {tmp_path / 'shared'}\n    environment: {name} ")
    return space


def test_c6_a_second_clone_finds_what_the_first_paid_for(tmp_path: Path, llm_server: LlmServer) -> None:
    first, second = clone("first", tmp_path, llm_server), clone("second", tmp_path, llm_server)
    first.run()
    assert first.sent == 24
    assert {"error", "partial", "skipped"}.isdisjoint(statuses(second.run()).values())
    assert second.sent == 0
    assert second.digests() == first.digests()
    with first.session() as session:
        assert session.store.environments.names() == ["capitals/first", "capitals/second"]


def test_c6_two_clones_at_once_pay_once_and_lose_no_pointer(tmp_path: Path, llm_server: LlmServer) -> None:
    clones = [clone("one", tmp_path, llm_server), clone("two", tmp_path, llm_server)]
    llm_server.delay = 0.05
    environment = {**os.environ, "LLM_URL": llm_server.url}
    runs = [subprocess.Popen(RUN, cwd=each.root, env=environment, stderr=subprocess.DEVNULL) for each in clones]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert len(llm_server.requests) == 24
    assert clones[0].digests() == clones[1].digests()
    assert {"notes", "questions", "answers", "labelled", "kept", "kept__rejects"} <= clones[0].digests().keys()
    with clones[0].session() as session:
        assert list(session.store.health.check()) == []
