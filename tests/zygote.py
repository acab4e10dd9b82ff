"""A process that has imported bqbuild once and forks itself for every command: runs without seconds of imports.

As a script it serves its stdin; `Zygote` is what tests use.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[1]
MODULES = (
    "bqbuild.cli.run_command",
    "bqbuild.cli.show_command",
    "bqbuild.run.command",
    "bqbuild.run.execute",
    "bqbuild.run.warehouse",
    "bqbuild.llm.openai_http",
    "bqbuild.nodes.filter",
    "bqbuild.nodes.mix",
    "bqbuild.nodes.python",
    "bqbuild.nodes.source",
    "bqbuild.nodes.sql",
    "bqbuild.quality.dedup",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "_strptime",
)
OPTIONAL = ("pandas",)
"""What pyarrow imports by itself where it is installed."""


@dataclass(frozen=True)
class Child:
    """A command that runs in a fork; what it printed is in `output` when it has ended."""

    zygote: Zygote
    pid: int
    output: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal; nothing happens where it has ended by itself."""
        self.zygote.ask({"kill": self.pid, "signal": int(number)})

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit code, or minus the signal that ended it. Raises TimeoutError, having killed it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            answer = self.zygote.ask({"wait": self.pid, "seconds": min(5.0, deadline - time.monotonic())})
            if answer["code"] is not None:
                return int(answer["code"])
        self.kill()
        raise TimeoutError(f"a run did not end within {seconds:.0f} s: {self.said()}")

    def is_running(self, seconds: float = 0.0) -> bool:
        """Whether it still runs after so many seconds; looks no longer than it must."""
        return bool(self.zygote.ask({"running": self.pid, "seconds": seconds})["running"])

    def said(self) -> str:
        """What it printed."""
        return self.output.read_text("utf-8", errors="replace")


class Zygote:
    """Starts when it is entered, and ends its children with itself. `modules` are imported on top of the usual ones."""

    def __init__(self, scratch: Path, *modules: str) -> None:
        self._scratch = scratch
        self._modules = (*MODULES, *modules)
        self._started = 0

    def __enter__(self) -> Self:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote", *self._modules],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._answer()["ready"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def start(self, project: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Child:
        """Start `bqbuild ARGUMENTS` in `project`."""
        self._started += 1
        output = self._scratch / f"output-{self._started}.txt"
        asked = {
            "run": list(arguments),
            "project": str(project),
            "environment": dict(environment or {}),
            "output": str(output),
        }
        return Child(self, self.ask(asked)["pid"], output)

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Send a question, and give the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that forks runs has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve(modules: list[str]) -> None:
    """Import, then fork for every line of stdin until it ends."""
    for name in modules:
        __import__(name)
    for name in OPTIONAL:
        with suppress(ImportError):
            __import__(name)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    _say(answers, {"ready": _is_alone()})
    children: set[int] = set()
    for line in sys.stdin.buffer:
        question = json.loads(line)
        if "run" in question:
            pid = os.fork()
            if not pid:
                _become(question)
            children.add(pid)
            _say(answers, {"pid": pid})
        elif "kill" in question:
            if question["kill"] in children:
                os.kill(question["kill"], question["signal"])
            _say(answers, {})
        elif "running" in question:
            _say(
                answers,
                {
                    "running": question["running"] in children
                    and not _has_ended(question["running"], question["seconds"])
                },
            )
        else:
            code = _wait(question["wait"], question["seconds"])
            if code is not None:
                children.discard(question["wait"])
            _say(answers, {"code": code})
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _is_alone() -> bool:
    """Whether no thread but this one could hold a lock at a fork; jemalloc's own takes care of itself."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return sum(name != "jemalloc_bg_thd" for name in names) <= 1


def _say(answers: Any, answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _wait(pid: int, seconds: float) -> int | None:
    """The exit code of a child, or None where it still runs."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if _has_ended(pid, seconds) else None


def _has_ended(pid: int, seconds: float) -> bool:
    """Whether a child that nobody waited for has ended, at the latest after so many seconds."""
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def _become(question: Mapping[str, Any]) -> None:
    """The child: a process of its own that runs one command and never returns."""
    from bqbuild.cli.main import main

    code = 70
    try:
        os.setsid()
        os.chdir(question["project"])
        os.environ.update(question["environment"])
        output = os.open(question["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, target)
        os.closerange(3, 64)
        sys.stdin = open(0, encoding="utf-8")
        main(question["run"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1:])
