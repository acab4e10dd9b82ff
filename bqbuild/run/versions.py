"""Versions of an environment: as it is now, or as it was after an earlier run. `dev`, `@1`, `prod@2`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bqbuild.core.errors import UsageError, did_you_mean
from bqbuild.core.records import NodeName
from bqbuild.run.session import Session
from bqbuild.store.base import Pointer, RunRecord

_BACK = re.compile(r"(?P<environment>.*)@(?P<back>[0-9]+)")


@dataclass(frozen=True, slots=True)
class Version:
    """Where all names of an environment pointed; `run` is the last run before, where it is recorded."""

    environment: str
    back: int
    pointers: Mapping[NodeName, Pointer]
    run: RunRecord | None


def find_version(session: Session, text: str) -> Version:
    """The version that `text` names: an environment (of this project, or `<project>/<name>`), or `@N`, N runs back.

    Raises UsageError where there is none.
    """
    found = _BACK.fullmatch(text)
    name, back = (found["environment"], int(found["back"])) if found else (text, 0)
    environment = _environment(session, name) if name else session.environment
    pointers = session.store.environments.read(environment)
    runs = session.store.runs.list(environment, back + 2)
    # a run that was killed right after it had moved the pointers is not recorded
    is_recorded = bool(runs) and runs[0].pointers == pointers
    versions = [] if is_recorded or not (runs or pointers) else [Version(environment, 0, pointers, None)]
    versions += [Version(environment, number, run.pointers, run) for number, run in enumerate(runs, len(versions))]
    if back >= len(versions):
        raise UsageError(
            f"`{text}` goes back too far: {_recorded(environment, len(runs))}",
            hint="@0 is how it is now, @1 how it was before the last run that changed something",
        )
    return versions[back]


def _recorded(environment: str, runs: int) -> str:
    several = runs > 1
    return f"{runs or 'no'} {'runs' if several else 'run'} of `{environment}` {'are' if several else 'is'} recorded"


def _environment(session: Session, name: str) -> str:
    """The full name of an environment. One of this project may be named without it."""
    known = {*session.store.environments.names(), *session.store.runs.environments()}
    own = f"{session.project.name}/{name}"
    for full in (own, name):
        if full in known:
            return full
    short = [each.removeprefix(f"{session.project.name}/") for each in sorted(known)]
    hint = did_you_mean(name, short) or (f"environments: {', '.join(short)}" if short else "run `bqbuild run` first")
    raise UsageError(f"there is no environment `{name}` in this store", hint=hint)
