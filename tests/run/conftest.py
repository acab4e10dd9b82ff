"""Fixtures for tests of the run engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.llm_server import LlmServer
from tests.space import Space


@pytest.fixture
def capitals(tmp_path: Path, llm_server: LlmServer) -> Space:
    """The project `capitals`, not built yet; a call that fails is not tried again."""
    space = Space.copy("capitals", tmp_path / "capitals", llm_server)
    space.edit("project/profiles.yml", "retries: 6", "retries: 0")
    return space
