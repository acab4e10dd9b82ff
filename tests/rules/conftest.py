"""Every rule of the product is tested on the small project of SPEC's appendix, against a server that counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import bqbuild  # noqa: F401  a fixture
from tests.llm_server import LlmServer
from tests.space import Space


@pytest.fixture
def capitals(tmp_path: Path, llm_server: LlmServer) -> Space:
    """The project `capitals`, not built yet."""
    return Space.copy("capitals", tmp_path / "capitals", llm_server)


@pytest.fixture
def built(capitals: Space) -> Space:
    """The project `capitals`, built once: 4 notes × 2 grades = 8 questions, 8 answers, 8 labels."""
    results = capitals.run()
    assert {result.status for result in results.values()} == {"success"}
    return capitals
