"""The state of a training run in one file, so that a killed run goes on as if nothing had happened.

Written whole, flushed to the disk, then renamed: the file is there and good, or it is the one before.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bqbuild.core.errors import StoreError

NAME = "state.pt"


@dataclass(frozen=True, slots=True)
class State:
    """All that a run is, after `step` steps; `curve` holds the rows of the metrics so far."""

    step: int
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    random: Mapping[str, Any]
    curve: list[dict[str, Any]]


def save_state(folder: Path, state: State, *, run: str) -> None:
    """Write the state of the run that `run` names. Raises StoreError where the disk does not take it."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{NAME}.new"
    whole = {"run": run, **{name: getattr(state, name) for name in State.__slots__}}
    try:
        with unfinished.open("wb") as file:
            torch.save(whole, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(folder / NAME)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        unfinished.unlink(missing_ok=True)
        hint = "free some space; training goes on from the checkpoint before"
        raise StoreError(f"cannot write a checkpoint to {folder}: {error}", hint=hint) from error


def load_state(folder: Path, *, run: str) -> State | None:
    """The last state of the run that `run` names, or None where there is none that can be read."""
    try:
        whole = torch.load(folder / NAME, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
        return None
    if not isinstance(whole, dict) or whole.pop("run", None) != run:
        return None
    return State(**whole)


def random_state() -> dict[str, Any]:
    """The states of torch's generators (dropout draws from them)."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put torch's generators back."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
