from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bqbuild.cli.main import COMMANDS
from tests.cli.conftest import Bqbuild
from tests.llm_server import LlmServer
from tests.space import Space

HEAVY = (
    "torch",
    "transformers",
    "duckdb",
    "aiohttp",
    "sqlglot",
    "networkx",
    "pyarrow",
    "numpy",
    "pydantic",
    "jinja2",
    "rich",
)


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120, **options
    )  # type: ignore[call-overload]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []], ids=["help", "version", "nothing"])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = run("-X", "importtime", "-m", "bqbuild.cli.main", *arguments)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "click" in imported
    assert imported.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_examples_of_its_flags(name: str, bqbuild: Bqbuild) -> None:
    done = bqbuild(name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: bqbuild {name}")
    assert "--project-dir" in done.out


def test_help_lists_every_command(bqbuild: Bqbuild) -> None:
    done = bqbuild("--help")
    assert done.code == 0
    for name, line in COMMANDS.items():
        assert name in done.out
        assert line in done.out


def test_an_unknown_command_offers_the_nearest(bqbuild: Bqbuild) -> None:
    done = bqbuild("biuld")
    assert done.code == 2
    assert "no such command 'biuld' (did you mean 'build'?)" in done.err


def test_an_unknown_flag_is_a_usage_error(bqbuild: Bqbuild) -> None:
    done = bqbuild("ls", "--slect", "x")
    assert done.code == 2
    assert "--slect" in done.err
    assert "--select" in done.err


def test_outside_of_a_project_the_error_says_what_to_do(
    bqbuild: Bqbuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = bqbuild("ls")
    assert done.code == 2
    assert "bqbuild init" in done.err
    assert not done.out


def test_all_mistakes_are_told_with_file_line_and_column(bqbuild: Bqbuild, capitals: Space) -> None:
    capitals.edit("models/models.yml", "    prompt: ask", "    promt: ask")
    capitals.edit("models/models.yml", "    from: answers", "    from: answrs")
    done = bqbuild("parse")
    assert done.code == 2
    assert "models/models.yml:10:5: unknown key 'promt'" in done.err
    assert "did you mean 'prompt'?" in done.err
    assert "did you mean 'answers'?" in done.err
    assert "Traceback" not in done.err


def test_a_traceback_is_shown_with_debug_only(bqbuild: Bqbuild, capitals: Space) -> None:
    assert "Traceback" not in bqbuild("show", "nothing").err
    assert "Traceback" in bqbuild("show", "nothing", "--debug").err


def test_a_bug_of_ours_is_one_sentence_and_exit_1(bqbuild: Bqbuild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "broken", "A command that lost its module.")
    done = bqbuild("broken")
    assert done.code == 1
    assert "bqbuild failed: ModuleNotFoundError" in done.err
    assert "--debug" in done.err
    assert "Traceback" not in done.err


def test_global_flags_stand_before_or_after_the_command(
    bqbuild: Bqbuild, capitals: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = str(capitals.root)
    assert bqbuild("--project-dir", root, "ls").out == bqbuild("ls", "--project-dir", root).out != ""


def test_flags_win_over_environment_variables(
    bqbuild: Bqbuild, capitals: Space, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BQBUILD_PROJECT_DIR", str(capitals.root))
    assert bqbuild("ls").code == 0
    monkeypatch.setenv("BQBUILD_TARGET", "nowhere")
    assert "there is no target 'nowhere'" in bqbuild("ls").err
    assert bqbuild("ls", "--target", "dev").code == 0
    assert bqbuild("--target", "dev", "ls").code == 0


def test_vars_are_yaml_and_must_be_a_mapping(bqbuild: Bqbuild, capitals: Space) -> None:
    assert "length(text) >= 42" in bqbuild("compile", "clean_notes", "--vars", "{min_words: 42}").out
    done = bqbuild("ls", "--vars", "42")
    assert done.code == 2
    assert "--vars is not a mapping" in done.err


def test_a_reader_that_stops_reading_is_no_error(capitals: Space) -> None:
    command = f"{sys.executable} -m bqbuild.cli.main ls | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "notes\n"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_an_interrupted_run_keeps_what_was_answered(capitals: Space, llm_server: LlmServer, bqbuild: Bqbuild) -> None:
    llm_server.delay = 0.2
    capitals.edit("project/profiles.yml", "max_concurrency: 64", "max_concurrency: 1")
    process = subprocess.Popen(
        [sys.executable, "-m", "bqbuild.cli.main", "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while len(llm_server.statuses) < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "every answer that came is kept" in err
    assert "Traceback" not in err
    llm_server.delay = 0.0
    interrupted = len(llm_server.requests)
    assert bqbuild("run").code == 0
    # of 24 calls, at most the one that was on its way when the run was stopped is sent twice
    assert len(llm_server.requests) <= 24 + 1
    assert interrupted >= 3
