"""A real store in a temporary folder, calls to put into it, and processes to use it from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bqbuild.core.hashing import digest
from bqbuild.core.records import CallKey, CallRecord, ChatReply, ChatRequest, Message
from bqbuild.store import open_store
from bqbuild.store.base import Store

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(str(tmp_path / "store"))
    yield opened
    opened.close()


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the same store again, as another process would."""
    opened = []

    def again() -> Store:
        opened.append(open_store(str(tmp_path / "store")))
        return opened[-1]

    yield again
    for each in opened:
        each.close()


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a real process that runs a script; its arguments begin with the path of the store."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, str(tmp_path / "store"), *map(str, arguments)]
        process = subprocess.Popen(
            command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def make_call(number: int, *, text: str | None = None, created: float = 1.0) -> CallRecord:
    """The call with this number; its answer is `text`."""
    request = ChatRequest(
        messages=(Message("system", "You write exam questions."), Message("user", f"question {number}")),
        params={"temperature": 0.7, "max_tokens": 200, "stop": ["\n\n"]},
        sample=number % 3,
    )
    reply = ChatReply(text or f"answer {number}", "because", "stop", 10, 20, "mock-1", "fp")
    return CallRecord(make_key(number), "writer", {"model": "mock"}, request, reply, 0.001, 0.5, created)


def make_key(number: int) -> CallKey:
    """The key of the call with this number."""
    return CallKey(digest(["call", number]))
