"""Where the files of a project are, and which folder is one. Parses nothing."""

from __future__ import annotations

from pathlib import Path

from bqbuild.core.errors import UsageError

FILE = "project/bqbuild.yml"
PROFILES = "project/profiles.yml"
LOCK = "project/sources.lock"
SAMPLE = "__sample"
"""What the environment of a sample has behind its name."""


def find_project(start: Path) -> Path:
    """The root of the project that `start` is in: the nearest folder upwards with project/bqbuild.yml.

    Raises UsageError where there is none.
    """
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / FILE).is_file():
            return folder
    raise UsageError(f"there is no {FILE} in {start} or above", hint="run `bqbuild init`, or give --project-dir")
