"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import settings

from tests.llm_server import LlmServer

# The same examples every time, and no complaint about a machine that is busy.
settings.register_profile("bqbuild", deadline=None, derandomize=True)
settings.load_profile("bqbuild")


@pytest.fixture
def llm_server() -> Iterator[LlmServer]:
    """A chat server of this test's own."""
    with LlmServer() as server:
        yield server


@pytest.fixture
def project_dir(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Writes a project: a mapping of relative paths to texts (dedented) becomes a folder, whose path is returned."""

    def write(files: Mapping[str, str]) -> Path:
        root = tmp_path / "project_under_test"
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text), encoding="utf-8")
        return root

    return write
