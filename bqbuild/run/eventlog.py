"""The structured log of a run: `.bqbuild/<target>/logs/<time>-<command>.jsonl`, one JSON object an event."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from bqbuild.core.errors import StoreError
from bqbuild.core.events import Event, Listener, LlmProgress, NodeProgress, RunFinished, RunStarted
from bqbuild.run.view import View

KEPT = 50
"""Logs that stay; older ones are removed when a new one begins."""

PROGRESS_SECONDS = 5.0
"""The least time between two entries on the progress of one node, or of one LLM."""


@contextmanager
def event_log(session: View, command: str) -> Iterator[Listener]:
    """A listener that writes what it hears; secrets are masked. Raises StoreError where the log cannot be opened."""
    folder = session.artifacts / "logs"
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{command}-{os.getpid()}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _forget_old(folder)
        file = (folder / name).open("w", encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"cannot write logs/{name}: {error.strerror}", hint="free disk space, then run again"
        ) from error
    with file:
        yield _writer(lambda line: _write(file.fileno(), line), session.project.secrets.redact)


def _writer(write: Callable[[str], None], redact: Callable[[str], str]) -> Listener:
    spoke: dict[str, float] = {}

    def listen(event: Event) -> None:
        if isinstance(event, NodeProgress | LlmProgress):
            # the last word of a connection, when nothing is under way any more, is its sum
            subject = event.name if isinstance(event, NodeProgress) else f"llm {event.llm}"
            is_last = isinstance(event, LlmProgress) and not event.in_flight and not event.waiting
            if not is_last and monotonic() - spoke.get(subject, -PROGRESS_SECONDS) < PROGRESS_SECONDS:
                return
            spoke[subject] = monotonic()
        entry = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": type(event).__name__}
        write(redact(json.dumps(entry | _content(event), ensure_ascii=False, default=str)) + "\n")

    return listen


def _content(event: Event) -> dict[str, object]:
    """The fields of an event; what earlier events have told already is only counted."""
    if isinstance(event, RunStarted):
        return {"nodes": [name for name, _ in event.nodes]}
    if isinstance(event, RunFinished):
        return {"seconds": event.seconds, "statuses": {result.name: result.status for result in event.results}}
    return asdict(event)


def _write(descriptor: int, line: str) -> None:
    """A log that cannot be written must not end a run that has paid for its calls."""
    try:
        os.write(descriptor, line.encode("utf-8", "replace"))
    except OSError:
        return


def _forget_old(folder: Path) -> None:
    for path in sorted(folder.glob("*.jsonl"))[: -KEPT + 1]:
        path.unlink(missing_ok=True)
