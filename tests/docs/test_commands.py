"""Runs the commands that the guides show, in order, as a reader would.

In a guide, a `sh` block is run, and a `text` block after it is what it prints to stdout. `<!-- file: PATH -->` before a
block: the block is that file. `<!-- not run -->` before a block: it is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bqbuild.cli.main import COMMANDS
from bqbuild.core.errors import ProjectError
from bqbuild.llm.weights import resolve_weights
from tests.llm_server import LlmServer
from tests.space import Space

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SERVER = "http://127.0.0.1:8000/v1"
END = "=== end of a block ==="

_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]+?) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
_COMMAND = re.compile(r"(?:`|bin/)bqbuild ([a-z][a-z-]*)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page, and the note in the comment before it."""

    language: str
    note: str
    body: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, without those that are not to be run."""
    found = [
        Block(match["language"], match["note"] or "", match["body"])
        for match in _BLOCK.finditer(page.read_text("utf-8"))
    ]
    return [block for block in found if block.note != "not run"]


def script(found: list[Block]) -> tuple[str, list[str | None]]:
    """A shell script that does what a page says, and what each of its `sh` blocks shall print, where that is shown."""
    lines = ["set -euo pipefail"]
    wanted: list[str | None] = []
    for number, block in enumerate(found):
        if block.note.startswith("file: "):
            path = block.note.removeprefix("file: ")
            lines += [f"mkdir -p {os.path.dirname(path) or '.'}", f"cat > {path} <<'END_OF_FILE'"]
            lines += [block.body + "END_OF_FILE"]
        elif block.language == "sh":
            after = found[number + 1] if number + 1 < len(found) else None
            wanted.append(after.body if after is not None and after.language == "text" else None)
            lines += [block.body, f"echo '{END}'"]
    return "\n".join(lines), wanted


def follow(page: Path, folder: Path, url: str = SERVER) -> None:
    """Do what a page says in `folder`, and compare what it shows."""
    text, wanted = script(blocks(page))
    assert wanted, "the page shows no command"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BQBUILD_TARGET", "LLM_"))}
    # one thread: tests run side by side
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", text.replace(SERVER, url)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.split(f"{END}\n")
    for shown, said in zip(wanted, printed, strict=False):
        assert shown is None or shown == said[-len(shown) :], f"the page shows\n{shown}\nthe command printed\n{said}"


def has_weights() -> bool:
    """Whether the embedded model is on this machine."""
    try:
        resolve_weights("embedded")
    except ProjectError:
        return False
    return True


@pytest.mark.skipif(not has_weights(), reason="the embedded model is not here: bqbuild debug --fetch-model")
def test_the_commands_of_the_first_guide_work(tmp_path: Path) -> None:
    follow(ROOT / "docs/guides/getting-started.md", tmp_path)


def test_the_commands_of_the_guide_to_connections_work(tmp_path: Path, llm_server: LlmServer) -> None:
    follow(ROOT / "docs/guides/llm-connections.md", tmp_path, llm_server.url)
    assert llm_server.requests


def test_the_provider_of_the_guide_is_installed_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs/guides/your-own-provider.md"
    for block in blocks(page):
        path = tmp_path / block.note.removeprefix("file: ")
        if block.note.startswith("file: bqbuild-command/"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.body, encoding="utf-8")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]  # and no network
    install = [sys.executable, "-m", "pip", "install", *quiet, "--target", "installed", "./bqbuild-command"]
    subprocess.run(install, cwd=tmp_path, check=True, timeout=300)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'installed'}{os.pathsep}{ROOT}")
    follow(page, tmp_path)


def test_the_example_of_the_readme_is_a_project_that_runs(tmp_path: Path, llm_server: LlmServer) -> None:
    space = Space.copy("capitals", tmp_path / "capitals", llm_server)
    files = [block for block in blocks(ROOT / "README.md") if block.note.startswith("file: ")]
    for block in files:
        space.write(block.note.removeprefix("file: "), block.body)
    results = space.run()
    assert len(files) == 3
    assert {name: result.status for name, result in results.items()} == {
        "clean_notes": "success",
        "questions": "success",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    shown = "".join(block.body for block in blocks(page) if block.language in ("sh", ""))
    named = {*_COMMAND.findall(page.read_text("utf-8")), *re.findall(r"^bqbuild ([a-z][a-z-]*)", shown, re.MULTILINE)}
    assert named <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    # a picture is drawn from a finished run, which a fresh checkout has not
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
