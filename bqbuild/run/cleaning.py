"""Removes the artifacts of a target: what commands write again. Never anything of a store."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from bqbuild.config.project import Project
from bqbuild.core.errors import StoreError
from bqbuild.store.marker import NAME as MARKER


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed from a folder: the names in it, how many files, and their bytes."""

    folder: Path
    names: tuple[str, ...]
    files: int
    bytes: int


def remove_artifacts(project: Project) -> Removed:
    """Empty `.bqbuild/<target>/`. Raises StoreError where a file cannot be removed, or where that folder is a store."""
    folder = project.artifacts
    # `.bqbuild` holds artifacts by target and, where nothing else is said, the store: a target may be called `v1`
    if any((folder / name).exists() for name in (MARKER, "v1", "calls/segments")):
        raise StoreError(
            f"{folder} is a store as well, and `clean` removes nothing of a store",
            hint="set `store:` in project/profiles.yml to another folder and move `v1` and `store.json` there",
        )
    names: list[str] = []
    files = size = 0
    try:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            inside = [path] if path.is_file() or path.is_symlink() else list(path.rglob("*"))
            found = [each.lstat().st_size for each in inside if not each.is_dir() or each.is_symlink()]
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            names.append(path.name)
            files += len(found)
            size += sum(found)
        if names:
            folder.rmdir()
    except OSError as error:
        raise StoreError(
            f"cannot remove {error.filename or folder}: {error.strerror}", hint="check who owns the folder"
        ) from error
    return Removed(folder, tuple(names), files, size)
