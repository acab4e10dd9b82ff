"""The command line, called in this process on a copy of a small project, against a server that counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bqbuild.cli.main import main
from tests.llm_server import LlmServer
from tests.space import Space


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """stdout as JSON."""
        return json.loads(self.out)


Bqbuild = Callable[..., Done]


@pytest.fixture
def bqbuild(capsys: pytest.CaptureFixture[str]) -> Bqbuild:
    """Calls the command line as a shell would."""

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capsys.readouterr()
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0, out, err)

    return call


@pytest.fixture
def capitals(tmp_path: Path, llm_server: LlmServer, monkeypatch: pytest.MonkeyPatch) -> Space:
    """The project `capitals`, not built yet, as the working directory."""
    space = Space.copy("capitals", tmp_path / "capitals", llm_server)
    monkeypatch.chdir(space.root)
    monkeypatch.setenv("LLM_URL", llm_server.url)
    for name in ("BQBUILD_TARGET", "BQBUILD_PROJECT_DIR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return space


@pytest.fixture
def built(capitals: Space, bqbuild: Bqbuild) -> Space:
    """The project `capitals`, built once."""
    assert bqbuild("run", "--quiet").code == 0
    return capitals
