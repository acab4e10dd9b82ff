"""Fixtures for tests of the run engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.llm_server import LlmServer
from tests.space import Space

PROFILES = """
default: dev
targets:
  dev:
    store: .bqbuild
    llms:
      writer: {provider: openai, base_url: "{{ env_var('LLM_URL') }}", model: mock, retries: 0}
"""


@pytest.fixture
def bare(tmp_path: Path, llm_server: LlmServer) -> Space:
    """A project with a connection `writer` and a source `notes` (id, topic; 3 rows), and no models."""
    space = Space(tmp_path / "bare", llm_server)
    space.write("project/bqbuild.yml", "name: bare\nversion: 1\n")
    space.write("project/profiles.yml", PROFILES)
    space.write("project/sources/notes.csv", "id,topic\n1,rain\n2,snow\n3,hail\n")
    space.write("models/sources.yml", "sources: [{name: notes, path: sources/notes.csv, key: id}]\n")
    return space


@pytest.fixture
def capitals(tmp_path: Path, llm_server: LlmServer) -> Space:
    """The project `capitals`, not built yet; a call that fails is not tried again."""
    space = Space.copy("capitals", tmp_path / "capitals", llm_server)
    space.edit("project/profiles.yml", "retries: 6", "retries: 0")
    return space
