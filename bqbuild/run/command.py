"""What `run` and `build` do around a run: hooks for listeners, artifacts, the warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bqbuild.core.events import Event, Listener, Tested
from bqbuild.core.hashing import Digest
from bqbuild.core.records import NodeName
from bqbuild.run.artifacts import run_results, write_json, write_manifest
from bqbuild.run.eventlog import event_log
from bqbuild.run.execute import run
from bqbuild.run.options import RunOptions
from bqbuild.run.session import Session
from bqbuild.run.warehouse import is_current, note_current, write_warehouse
from bqbuild.store.base import DamagedError

FAILED = ("error", "partial", "skipped")


def run_models(
    session: Session, names: Sequence[NodeName], options: RunOptions, listeners: Sequence[Listener], *, command: str
) -> dict[str, Any]:
    """Run, write what a run leaves behind, and return `run_results.json` with `succeeded` added."""
    tested: list[Tested] = []

    def listen(event: Event) -> None:
        if isinstance(event, Tested):
            tested.append(event)

    with event_log(session, command) as log:
        results = run(session, names, options, [*listeners, listen, log], command=command)
    document = run_results(session, results, tested, command=command)
    write_json(session.artifacts / "run_results.json", document)
    write_manifest(session, command)
    if is_current(session):
        note_current(session)
    else:
        _write_warehouse(session, names, options)
    is_good = not any(result.status in FAILED for result in results)
    return document | {"succeeded": is_good and not any(test.status == "fail" for test in tested)}


def _write_warehouse(session: Session, names: Sequence[NodeName], options: RunOptions) -> None:
    """Write the warehouse; a damaged table that the run had no need to read is found now, and built again."""
    found: set[Digest | None] = set()
    while True:
        try:
            return write_warehouse(session)
        except DamagedError as error:
            if error.digest is None or error.digest in found:
                raise
            found.add(error.digest)
            run(session, names, replace(options, full_refresh=False, tests=False))
