from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading

import pytest

from bqbuild.cli.figures import pace
from bqbuild.cli.progress import Display, sum_up_tests
from bqbuild.cli.settings import Settings
from bqbuild.core import events
from bqbuild.core.events import (
    Counts,
    LlmProgress,
    NodeFinished,
    NodeProgress,
    NodeResult,
    NodeStarted,
    RunFinished,
    RunStarted,
    Warned,
)
from bqbuild.core.records import NodeName
from tests.space import Space

A, B = NodeName("a"), NodeName("b")


def on_terminal(*arguments: str, environ: dict[str, str] | None = None) -> tuple[int, str]:
    """Run the command line with stderr on a terminal; its exit code and what the terminal was sent."""
    ours, theirs = pty.openpty()
    sent: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                sent.append(data)
        except OSError:  # the other side is closed
            return

    reader = threading.Thread(target=read)
    reader.start()
    environ = {**os.environ, "TERM": "xterm-256color", **(environ or {})}
    done = subprocess.run(
        [sys.executable, "-m", "bqbuild.cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environ,
        check=False,
        timeout=120,
    )
    os.close(theirs)
    reader.join(10)
    os.close(ours)
    return done.returncode, b"".join(sent).decode()


def test_a_terminal_gets_colour_and_its_cursor_back(capitals: Space) -> None:
    code, text = on_terminal("run")
    assert code == 0
    assert "\x1b[32m" in text
    assert "models" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "5 success" in text


@pytest.mark.parametrize("way", ["flag", "environment"])
def test_no_color_leaves_no_colour(capitals: Space, way: str) -> None:
    flags, environ = (["--no-color"], None) if way == "flag" else ([], {"NO_COLOR": "1"})
    code, text = on_terminal("run", *flags, environ=environ)
    assert code == 0
    assert "\x1b[3" not in text
    assert "5 success" in text


def test_quiet_says_nothing_of_what_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(Settings(quiet=True)) as display:
        display.listen(RunStarted(((A, "sql"),)))
        display.listen(NodeStarted(A, "new"))
        display.listen(Warned("a warning"))
        display.listen(NodeFinished(NodeResult(A, "sql", "success", "new")))
        display.listen(RunFinished((NodeResult(A, "sql", "success", "new"),), 0.1))
    assert capsys.readouterr().err == ""


def test_errors_are_told_even_when_quiet_and_named_again_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    failed = NodeResult(A, "sql", "error", "models/a.sql:1:2: wrong\n  hint: right")
    skipped = NodeResult(B, "sql", "skipped", "`a` failed")
    with Display(Settings(quiet=True)) as display:
        display.listen(RunStarted(((A, "sql"), (B, "sql"))))
        display.listen(NodeFinished(failed))
        display.listen(NodeFinished(skipped))
        display.listen(RunFinished((failed, skipped), 0.1))
    lines = capsys.readouterr().err.splitlines()
    assert "    models/a.sql:1:2: wrong" in lines
    assert "      hint: right" in lines
    assert any(line.startswith("1 error, 1 skipped") for line in lines)
    assert lines[-1] == "  failed: a"


def test_figures_name_calls_tokens_money_and_side_tables(capsys: pytest.CaptureFixture[str]) -> None:
    counts = Counts(1200, 800, 400, 3, 12345, 678, 1.5)
    with Display(Settings()) as display:
        display.listen(NodeFinished(NodeResult(A, "refine", "partial", "", counts, 2.0, None, {"errors": 7})))
    err = capsys.readouterr().err
    assert "1,200 rows · 800 new, 400 cached calls, 3 failed · 12,345 → 678 tokens · $1.5000 · 7 errors · 2.0 s" in err


def test_a_failed_test_makes_the_end_red_and_shows_rows(capsys: pytest.CaptureFixture[str]) -> None:
    done = NodeResult(A, "sql", "success", "new")
    with Display(Settings()) as display:
        display.listen(RunStarted(((A, "sql"),)))
        display.listen(events.Tested("unique_a_id", A, "fail", 2, ({"id": "\x1b[31mx"},)))
        display.listen(RunFinished((done,), 0.1))
    err = capsys.readouterr().err
    assert "✗ fail     unique_a_id · 2 rows" in err
    assert '{"id": "\\u001b[31mx"}' in err
    assert "1 success · 1 test: 1 fail" in err


def test_progress_without_a_terminal_is_no_flood(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(Settings()) as display:
        display.listen(RunStarted(((A, "train"),)))
        display.listen(NodeStarted(A, "new"))
        for step in range(1000):
            display.listen(NodeProgress(A, Counts(), step, 1000, "steps"))
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_figures_of_a_connection_are_one_short_line() -> None:
    busy = LlmProgress("writer", 64, 64, 136, 500, 0, 3, 41.5, 12345.0, 0.24, 1.16, 0.5)
    assert pace(busy) == (
        "41.5 calls/s · 64 in flight of 200 · 240 ms, 95 % within 1.2 s · 12,345 tokens/s · 3 retries"
    )
    assert pace(LlmProgress("writer", 1, 64, 0, 0, 0, 1, 0, 0, 0, 0, 0)) == "0.0 calls/s · 1 in flight · 1 retry"


def test_a_terminal_shows_how_a_connection_does(capitals: Space) -> None:
    capitals.server.delay = 0.7
    code, text = on_terminal("run")
    assert code == 0
    assert re.search(r"writer .*calls/s · \d+ in flight", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))


def test_tests_are_summed_up() -> None:
    assert sum_up_tests(["pass"]) == "1 test: 1 pass"
    assert sum_up_tests(["pass", "fail", "pass", "error"]) == "4 tests: 2 pass, 1 fail, 1 error"
