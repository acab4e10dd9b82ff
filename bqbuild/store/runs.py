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
        path = self._folder(environment) / f"{run.time.strftime(STAMP)}-{run.id}.json"
        write_atomic(path, checked_json(_to_json(environment, run)), self._scratch)
        return run

    def list(self, environment: str, limit: int | None = None) -> Sequence[RunRecord]:
        """The recorded runs, the newest first; the `limit` newest where one is given.

        Raises DamagedError, StoreError.
        """
        paths = sorted(self._folder(environment).glob("*.json"), reverse=True)
        found = (_read(path) for path in paths[:limit])
        return [run for run in found if run is not None]

    def environments(self) -> Sequence[str]:
        """All environments that have a history, sorted; they may be gone themselves."""
        return sorted({environment_name(path.parent.relative_to(self._root)) for path in self._root.glob("*/*/*.json")})

    def _folder(self, environment: str) -> Path:
        return self._root.joinpath(*environment_parts(environment))


def _read(path: Path) -> RunRecord | None:
    try:
        body = read_checked(path)
    except ValueError as error:
        raise DamagedError(
            f"{path} is damaged: {error}",
            hint="delete it: it only says where names pointed after one run; tables and calls are kept",
        ) from error
    if body is None:  # removed since the folder was listed
        return None
    return RunRecord(
        body["run"], datetime.fromisoformat(body["time"]), body["command"], pointers_from_json(body["pointers"])
    )


def _to_json(environment: str, run: RunRecord) -> dict[str, Any]:
    return {
        "environment": environment,
        "run": run.id,
        "time": run.time.isoformat(),
        "command": run.command,
        "pointers": pointers_to_json(run.pointers),
    }
