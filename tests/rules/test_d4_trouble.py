"""D4: a read-only store, a lost network, a revoked key end a run clearly, and everything paid for is kept.

Full disks: tests/store/test_full_disk.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.llm_server import Fault
from tests.space import Space, statuses

RUN = [sys.executable, "-m", "bqbuild.cli.main", "run"]


def run(space: Space, *prefix: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LLM_URL": space.server.url, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [*prefix, *RUN], cwd=space.root, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_d4_a_revoked_key_ends_the_run_and_keeps_what_came(capitals: Space) -> None:
    capitals.edit("project/profiles.yml", "max_concurrency: 64", "max_concurrency: 1")
    capitals.server.fault = lambda body, number: Fault(status=401) if number > 5 else None
    done = run(capitals)
    assert done.returncode == 1
    assert "401" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(capitals.server.requests) < 10
    capitals.server.fault = lambda body, number: None
    assert {"error", "partial", "skipped"}.isdisjoint(statuses(capitals.run()).values())
    assert capitals.sent == 24 - 5


def test_d4_a_lost_network_ends_the_run_and_keeps_what_came(capitals: Space) -> None:
    capitals.edit("project/profiles.yml", "max_concurrency: 64", "max_concurrency: 1")
    capitals.edit("project/profiles.yml", "retries: 6", "retries: 0")
    capitals.server.fault = lambda body, number: Fault(cut="before") if number > 5 else None
    done = run(capitals)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    capitals.server.fault = lambda body, number: None
    assert {"error", "partial", "skipped"}.isdisjoint(statuses(capitals.run()).values())
    assert capitals.sent == 24 - 5


@pytest.fixture
def read_only(built: Space) -> Iterator[Space]:
    """The built project with its store mounted read-only."""
    store = built.root / ".bqbuild" / "v1"
    bind = ["mount", "--bind", str(store), str(store)]
    if os.geteuid() != 0 or subprocess.run(bind, check=False, capture_output=True).returncode:
        pytest.skip("a read-only mount can only be made by root")
    subprocess.run(["mount", "-o", "remount,ro,bind", str(store)], check=True)
    yield built
    subprocess.run(["umount", "-l", str(store)], check=False)


def test_d4_a_read_only_store_is_a_clear_error_and_nothing_is_sent(read_only: Space) -> None:
    read_only.edit("prompts/label.md", "How difficult", "How hard")
    before = len(read_only.server.requests)
    done = run(read_only)
    assert done.returncode == 1
    assert "no permission for" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(read_only.server.requests) == before
    subprocess.run(["umount", "-l", str(read_only.root / ".bqbuild" / "v1")], check=True)
    read_only.run()
    assert read_only.sent == 8
