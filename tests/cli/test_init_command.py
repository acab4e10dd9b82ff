from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Bqbuild
from tests.llm_server import LlmServer


@pytest.fixture
def server(llm_server: LlmServer, monkeypatch: pytest.MonkeyPatch) -> LlmServer:
    """A server that the new project's target `server` uses."""
    monkeypatch.setenv("LLM_URL", llm_server.url)
    monkeypatch.delenv("BQBUILD_TARGET", raising=False)
    return llm_server


def test_a_new_project_builds_and_passes_its_test(bqbuild: Bqbuild, tmp_path: Path, server: LlmServer) -> None:
    done = bqbuild("init", str(tmp_path / "my-data"))
    assert done.code == 0
    assert "bqbuild plan" in done.err
    built = bqbuild("build", "--project-dir", str(tmp_path / "my-data"), "--target", "server")
    assert built.code == 0
    assert "3 success · 1 test: 1 pass · 10 new" in built.err
    assert "my_data" in (tmp_path / "my-data/project/bqbuild.yml").read_text("utf-8")
    assert (tmp_path / "my-data/.gitignore").read_text("utf-8") == ".bqbuild/\n"


def test_own_texts_become_the_source(bqbuild: Bqbuild, tmp_path: Path, server: LlmServer) -> None:
    data = tmp_path / "2 notes.jsonl"
    data.write_text('{"id": 1, "the body": "A text that is long enough."}\n{"id": 2, "the body": "short"}\n', "utf-8")
    root = tmp_path / "mine"
    assert bqbuild("init", str(root), "--from", str(data)).code == 0
    assert not (root / "project/sources/texts.jsonl").exists()
    done = bqbuild("run", "--project-dir", str(root), "--target", "server")
    assert done.code == 0
    assert "2 new" in done.err
    rows = bqbuild("show", "clean", "--project-dir", str(root), "--target", "server", "--json").json()
    assert [row["text"] for row in rows] == ["A text that is long enough."]


def test_no_file_is_ever_replaced(bqbuild: Bqbuild, tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/ask.md").write_text("mine", "utf-8")
    done = bqbuild("init", str(tmp_path))
    assert done.code == 2
    assert "prompts/ask.md is there already" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["prompts"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "is empty"), ("{nope", ":1: this is not JSON"), ("[1]", "not an object"), ('{"n": 1}', "no column of text")],
    ids=["empty", "broken", "list", "numbers"],
)
def test_a_file_that_does_not_fit_is_told(bqbuild: Bqbuild, tmp_path: Path, text: str, said: str) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(text, "utf-8")
    done = bqbuild("init", str(tmp_path / "new"), "--from", str(data))
    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "new").exists()


def test_without_a_terminal_nothing_is_asked(bqbuild: Bqbuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert bqbuild("init").code == 0
    assert (tmp_path / "project/bqbuild.yml").is_file()
