"""A tiny model, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bqbuild.llm.local.model import LocalModel, load_model
from tests.llm.tiny import write_tiny_model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Hugging Face folder of the tiny model."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> LocalModel:
    """The tiny model with this engine's attention."""
    torch.set_num_threads(1)
    return load_model(tiny_folder, None)
