"""What a person sees while a run goes on: a line a node on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bqbuild.cli.settings import Settings
from bqbuild.core.events import (
    Counts,
    Event,
    NodeFinished,
    NodeProgress,
    NodeResult,
    NodeStarted,
    RunFinished,
    RunStarted,
    Warned,
)
from bqbuild.core.records import NodeName

STYLES = {"success": "green", "cached": "dim", "partial": "yellow", "error": "bold red", "skipped": "yellow"}
MARKS = {"success": "✓", "cached": "=", "partial": "~", "error": "✗", "skipped": "-"}


class Display:
    """Listens to a run and shows it on stderr. A context manager: leaving it restores the terminal."""

    def __init__(self, settings: Settings) -> None:
        no_color = settings.no_color or bool(os.environ.get("NO_COLOR"))
        self._console = Console(stderr=True, no_color=no_color, highlight=False, soft_wrap=True)
        self._is_quiet = settings.quiet
        self._live: Live | None = None
        self._started: dict[NodeName, float] = {}
        self._progress: dict[NodeName, NodeProgress] = {}

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def warn(self, message: str) -> None:
        """Show a warning."""
        self._print(Text.assemble(("warning: ", "yellow"), message))

    def listen(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted():
                self._begin()
            case NodeStarted():
                self._started[event.name] = time.monotonic()
                if self._live is None:
                    self._print(Text(f"  build {event.name}: {event.reason}", style="dim"))
            case NodeProgress():
                self._progress[event.name] = event
            case NodeFinished():
                self._finish(event.result)
            case Warned():
                self.warn(event.message)
            case RunFinished():
                self._stop()
                self._summary(event)
        if self._live is not None:
            self._live.update(self._running())

    def _begin(self) -> None:
        if self._console.is_terminal and not self._is_quiet:
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.start()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _finish(self, result: NodeResult) -> None:
        self._started.pop(result.name, None)
        if result.status == "error":
            self._print(self._line(result))
            for line in result.reason.splitlines():
                self._print(Text(f"    {line}", style="red"), always=True)
        elif result.status != "cached" and result.kind != "source":
            self._print(self._line(result))

    def _line(self, result: NodeResult) -> Text:
        style = STYLES[result.status]
        line = Text.assemble(
            (f"  {MARKS[result.status]} {result.status:<8}", style),
            f" {result.name:<24}",
            (f" {result.kind:<11}", "dim"),
        )
        if result.status == "skipped":
            return line.append(result.reason, style="dim")
        line.append(figures(result.counts), style="" if result.status != "cached" else "dim")
        for side, rows in result.sides.items():
            if rows:
                line.append(f" · {rows:,} {side}", style="yellow" if side == "errors" else "dim")
        return line.append(f" · {result.seconds:.1f} s", style="dim")

    def _running(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for name, began in self._started.items():
            progress = self._progress.get(name)
            text = ""
            if progress is not None:
                of = f" of {progress.total:,}" if progress.total else ""
                text = f"{progress.done:,}{of} {progress.unit} · {figures(progress.counts)}"
                text += f" · {progress.note}" if progress.note else ""
            table.add_row(
                Text("  ◌", style="cyan"), Text(str(name)), Text(text, style="dim"), f"{time.monotonic() - began:.0f} s"
            )
        return table

    def _summary(self, event: RunFinished) -> None:
        models = [result for result in event.results if result.kind != "source"]
        if models and all(result.status == "cached" for result in models):
            self._print(Text(f"Nothing to do: {len(models)} models are up to date ({event.seconds:.1f} s)."))
            return
        parts = [
            f"{sum(result.status == status for result in models)} {status}"
            for status in STYLES
            if any(result.status == status for result in models)
        ]
        counts = _total([result.counts for result in models])
        line = f"{', '.join(parts)} · {spending(counts)} · {event.seconds:.1f} s"
        is_good = all(result.status in ("success", "cached") for result in event.results)
        self._print(Text(line, style="bold green" if is_good else "bold red"), always=not is_good)

    def _print(self, text: Text, *, always: bool = False) -> None:
        if not self._is_quiet or always:
            self._console.print(text)


def figures(counts: Counts) -> str:
    """`120 rows · 80 new, 40 cached calls · 12,345 tokens · $0.0123`, without what is nothing."""
    parts = [f"{counts.rows:,} rows"]
    if counts.new_calls or counts.cached_calls or counts.failed_calls:
        parts.append(spending(counts))
    return " · ".join(parts)


def spending(counts: Counts) -> str:
    """Calls, tokens and dollars."""
    calls = f"{counts.new_calls:,} new, {counts.cached_calls:,} cached calls"
    if counts.failed_calls:
        calls += f", {counts.failed_calls:,} failed"
    parts = [calls]
    if counts.input_tokens or counts.output_tokens:
        parts.append(f"{counts.input_tokens:,} → {counts.output_tokens:,} tokens")
    if counts.cost:
        parts.append(f"${counts.cost:.4f}")
    return " · ".join(parts)


def _total(parts: list[Counts]) -> Counts:
    return Counts(
        rows=sum(part.rows for part in parts),
        new_calls=sum(part.new_calls for part in parts),
        cached_calls=sum(part.cached_calls for part in parts),
        failed_calls=sum(part.failed_calls for part in parts),
        input_tokens=sum(part.input_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
        cost=sum(part.cost for part in parts),
    )
