"""D4: a read-only store, a lost network, a revoked key end a run clearly, and everything paid for is kept.

Full disks: also tests/store/test_full_disk.py.
"""

from __future__ import annotations

import os
import random
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.llm_server import Fault, default_answer
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


@pytest.fixture
def resize(capitals: Space) -> Iterator[Callable[[str], None]]:
    """The project's `.bqbuild` on a disk of its own, of 5 MB at first; gives what makes it larger."""
    store = capitals.root / ".bqbuild"
    store.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(store)]
    if os.geteuid() != 0 or subprocess.run(small, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(store)], check=True) and None
    subprocess.run(["umount", "-l", str(store)], check=False)


def long_answer(body: dict[str, object]) -> str:
    """400 KB that cannot be compressed much, as an extra key of the JSON that the prompt wants."""
    letters = "".join(random.Random(str(body)).choices(string.ascii_letters, k=400_000))
    answer = default_answer(body)
    return f'{answer[:-1]},"noise":"{letters}"}}' if answer.startswith("{") else answer


def test_d4_a_disk_that_fills_up_ends_the_run_and_keeps_what_was_paid_for(
    capitals: Space, resize: Callable[[str], None]
) -> None:
    notes = "".join(f'{{"id":"{number}","topic":"t{number}","text":"a text {number}"}}\n' for number in range(40))
    capitals.write("project/sources/notes.jsonl", notes)
    capitals.server.answer = long_answer
    full = run(capitals)
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert full.stderr.count("no space left") == 1, full.stderr
    assert "free some space" in full.stderr
    bought = len(capitals.server.requests)
    assert 0 < bought < 80
    again = run(capitals)
    assert again.returncode == 1
    assert again.stderr.count("no space left") == 1, again.stderr
    assert len(capitals.server.requests) < bought + 8  # the space that the first run left to its end
    resize("200m")
    assert run(capitals).returncode == 0
    assert len(capitals.server.requests) == 3 * 80
