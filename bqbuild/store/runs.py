"""The history of environments in a folder: one small file for every run that moved a pointer.

<root>/<project>/<environment>/<time>-<run id>.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from bqbuild.core.records import NodeName
from bqbuild.store.base import DamagedError, Pointer, RunRecord
from bqbuild.store.disk import checked_json, read_checked, write_atomic
from bqbuild.store.environments import environment_name, environment_parts, pointers_from_json, pointers_to_json

STAMP = "%Y%m%dT%H%M%S.%fZ"
"""The time in a file's name: names sort as the runs ended."""


class LocalRuns:
    """The run history of a folder store."""

    def __init__(self, root: Path, *, scratch: Path) -> None:
        self._root = root
        self._scratch = scratch

    def record(self, environment: str, command: str, pointers: Mapping[NodeName, Pointer]) -> RunRecord:
        """Write down that a run ended, and where all names point after it. Raises StoreError."""
        run = RunRecord(uuid4().hex[:12], datetime.now(UTC), command, dict(pointers))
        path = self.folder(environment) / f"{run.time.strftime(STAMP)}-{run.id}.json"
        write_atomic(path, checked_json(_to_json(environment, run)), self._scratch)
        return run

    def list(self, environment: str, limit: int | None = None) -> Sequence[RunRecord]:
        """The recorded runs, the newest first; the `limit` newest where one is given.

        Raises DamagedError, StoreError.
        """
        paths = sorted(self.folder(environment).glob("*.json"), reverse=True)
        found = (_read(path) for path in paths[:limit])
        return [run for run in found if run is not None]

    def environments(self) -> Sequence[str]:
        """All environments that have a history, sorted; they may be gone themselves."""
        return sorted({environment_name(path.parent.relative_to(self._root)) for path in self._root.glob("*/*/*.json")})

    def paths(self) -> Sequence[Path]:
        """The files of all runs of all environments, sorted."""
        return sorted(self._root.glob("*/*/*.json"))

    def folder(self, environment: str) -> Path:
        """Where the runs of an environment are recorded. Raises StoreError for what names none."""
        return self._root.joinpath(*environment_parts(environment))


def _read(path: Path) -> RunRecord | None:
    try:
        return read_record(path)
    except ValueError as error:
        raise DamagedError(
            f"{path} is damaged: {error}",
            hint="`bqbuild fsck` sets it aside: it only says where names pointed after one run",
        ) from error


def read_record(path: Path) -> RunRecord | None:
    """The run that a file records, or None where it is gone. Raises ValueError where it is damaged, or misplaced."""
    body = read_checked(path)
    if body is None:  # removed since the folder was listed
        return None
    time = datetime.fromisoformat(body["time"])
    if (
        environment_parts(body["environment"]) != path.parts[-3:-1]
        or path.stem != f"{time.strftime(STAMP)}-{body['run']}"
    ):
        raise ValueError("it belongs to another run")
    return RunRecord(body["run"], time, body["command"], pointers_from_json(body["pointers"]))


def _to_json(environment: str, run: RunRecord) -> dict[str, Any]:
    return {
        "environment": environment,
        "run": run.id,
        "time": run.time.isoformat(),
        "command": run.command,
        "pointers": pointers_to_json(run.pointers),
    }
