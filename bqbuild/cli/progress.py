"""What a person sees while models are built and tested: a line a node on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bqbuild.cli.figures import figures, pace, spending, total
from bqbuild.cli.output import json_text, safe
from bqbuild.cli.settings import Settings
from bqbuild.core.events import (
    BatchProgress,
    Event,
    LlmProgress,
    NodeFinished,
    NodeProgress,
    NodeResult,
    NodeStarted,
    RunFinished,
    RunStarted,
    Tested,
    Warned,
)
from bqbuild.core.records import NodeName

STYLES = {"success": "green", "cached": "dim", "partial": "yellow", "error": "bold red", "skipped": "yellow"}
MARKS = {"success": "✓", "cached": "=", "partial": "~", "error": "✗", "skipped": "-"}
TEST_STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red"}
TEST_MARKS = {"pass": "✓", "warn": "!", "fail": "✗"}

SILENCE = 30.0
"""Seconds after which a node that is still at work says so, where there is no terminal."""


class Display:
    """Listens to a run and shows it on stderr. A context manager: leaving it restores the terminal."""

    def __init__(self, settings: Settings) -> None:
        self._console = Console(stderr=True, no_color=settings.color() is False, highlight=False, soft_wrap=True)
        self._is_quiet = settings.quiet
        self._live: Live | None = None
        self._started: dict[NodeName, float] = {}
        self._spoke: dict[NodeName, float] = {}
        self._progress: dict[NodeName, NodeProgress] = {}
        self._llms: dict[str, LlmProgress] = {}
        self._batches: dict[str, BatchProgress] = {}
        self._results: list[NodeResult] = []
        self._tests: list[Tested] = []
        self._models = 0
        self._began = time.monotonic()

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def listen(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted():
                self._models = sum(kind != "source" for _, kind in event.nodes)
                self._begin()
            case NodeStarted():
                self._start(event)
            case NodeProgress():
                self._advance(event)
            case LlmProgress():
                self._llms[event.llm] = event
            case BatchProgress():
                self._tell_of_batch(event)
            case NodeFinished():
                self._finish(event.result)
            case Tested():
                self._tested(event)
            case Warned():
                self._print(Text.assemble(("warning: ", "yellow"), safe(event.message)))
            case RunFinished():
                self._stop()
                self._summary(event)

    def fail(self, message: str) -> None:
        """Show an error that ends nothing."""
        for line in safe_lines(message):
            self._print(Text(f"  {line}", style="red"), always=True)

    def _begin(self) -> None:
        if self._console.is_terminal and not self._is_quiet:
            self._live = Live(console=self._console, get_renderable=self._running, refresh_per_second=8, transient=True)
            self._live.start()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _start(self, event: NodeStarted) -> None:
        self._started[event.name] = self._spoke[event.name] = time.monotonic()
        if self._live is None:
            self._print(Text(f"  build {event.name}: {safe(event.reason)}", style="dim"))

    def _advance(self, event: NodeProgress) -> None:
        self._progress[event.name] = event
        now = time.monotonic()
        if self._live is None and now - self._spoke.get(event.name, now) >= SILENCE:
            self._spoke[event.name] = now
            self._print(Text(f"  …     {event.name}: {_got(event)}", style="dim"))

    def _tell_of_batch(self, event: BatchProgress) -> None:
        """A line that lives while the batch does; elsewhere one for each new status."""
        before = self._batches.pop(event.batch, None)
        if event.is_over:
            return
        self._batches[event.batch] = event
        if self._live is None and (before is None or before.status != event.status):
            self._print(Text(f"  batch {_batch_name(event)} ({event.llm}): {_of_batch(event)}", style="dim"))

    def _finish(self, result: NodeResult) -> None:
        self._started.pop(result.name, None)
        if result.kind != "source":
            self._results.append(result)
        if result.status == "error":
            self._print(self._line(result), always=True)
            for line in safe_lines(result.reason):
                self._print(Text(f"    {line}", style="red"), always=True)
        elif result.status != "cached" and result.kind != "source":
            self._print(self._line(result))
            if result.status == "partial":
                self._print(Text(f"    {safe(result.reason)}", style="yellow"))

    def _tested(self, event: Tested) -> None:
        self._tests.append(event)
        style = TEST_STYLES[event.status]
        line = Text.assemble((f"  {TEST_MARKS[event.status]} {event.status:<8}", style), f" {event.name}")
        if event.failures:
            line.append(f" · {_count(event.failures, 'row')}", style=style)
        self._print(line, always=event.status == "fail")
        for row in event.sample:
            self._print(Text(f"      {safe(json_text(row))[:200]}", style="dim"), always=event.status == "fail")

    def _line(self, result: NodeResult) -> Text:
        line = Text.assemble(
            (f"  {MARKS[result.status]} {result.status:<8}", STYLES[result.status]),
            f" {result.name:<24}",
            (f" {result.kind:<11}", "dim"),
        )
        if result.status == "skipped":
            return line.append(f" {safe(result.reason)}", style="dim")
        line.append(f" {figures(result.counts)}")
        for side, rows in result.sides.items():
            if rows:
                named = side.removesuffix("s") if rows == 1 else side
                line.append(f" · {rows:,} {named}", style="yellow" if side == "errors" else "dim")
        return line.append(f" · {result.seconds:.1f} s", style="dim")

    def _running(self) -> Table:
        """What is under way now, and how far the run is; drawn from the display's own thread."""
        now = time.monotonic()
        table = Table.grid(padding=(0, 1))
        for name, began in list(self._started.items()):
            progress = self._progress.get(name)
            got = _got(progress) if progress is not None else ""
            table.add_row(Text("  ◌", style="cyan"), Text(str(name)), Text(got, style="dim"), f"{now - began:.0f} s")
        for llm in list(self._llms.values()):
            if llm.in_flight or llm.waiting:
                table.add_row("", Text(llm.llm, style="dim"), Text(pace(llm), style="dim"), "")
        for batch in list(self._batches.values()):
            shown = Text(f"batch {_batch_name(batch)}")
            table.add_row(Text("  ⇅", style="cyan"), shown, Text(_of_batch(batch), style="dim"))
        running = [event.counts for name, event in list(self._progress.items()) if name in self._started]
        counts = total([*(result.counts for result in list(self._results)), *running])
        done = (
            f"{len(self._results)} of {_count(self._models, 'model')} · {spending(counts)} · {now - self._began:.0f} s"
        )
        table.add_row("", Text(done, style="dim"))
        return table

    def _summary(self, event: RunFinished) -> None:
        models = [result for result in event.results if result.kind != "source"]
        failed_tests = sum(test.status == "fail" for test in self._tests)
        is_good = all(result.status in ("success", "cached") for result in event.results) and not failed_tests
        if not event.results:
            self._print(Text("Nothing to do: nothing is selected."))
        elif is_good and all(result.status == "cached" for result in models):
            self._print(
                Text(f"Nothing to do: {_up_to_date(len(models))} ({event.seconds:.1f} s).{self._test_part(' ')}")
            )
        else:
            parts = [f"{number} {status}" for status in STYLES if (number := _with(models, status))]
            line = f"{', '.join(parts)}{self._test_part(' · ')} · {spending(total(r.counts for r in models))}"
            line += f" · {event.seconds:.1f} s"
            self._print(Text(line, style="bold green" if is_good else "bold red"), always=not is_good)
        broken = [str(result.name) for result in event.results if result.status in ("error", "partial")]
        if broken:
            self._print(Text(f"  failed: {', '.join(broken)}", style="red"), always=True)

    def _test_part(self, separator: str) -> str:
        """What came of tests, behind `separator`; empty where there were none."""
        if not self._tests:
            return ""
        return separator + sum_up_tests([test.status for test in self._tests])

    def _print(self, text: Text, *, always: bool = False) -> None:
        if not self._is_quiet or always:
            self._console.print(text)


def sum_up_tests(statuses: list[str]) -> str:
    """`12 tests: 10 pass, 1 warn, 1 fail`."""
    parts = [f"{number} {status}" for status in (*TEST_STYLES, "error") if (number := statuses.count(status))]
    return f"{_count(len(statuses), 'test')}: {', '.join(parts)}"


def safe_lines(text: str) -> list[str]:
    """The lines of a message, harmless to a terminal."""
    return [safe(line) for line in text.splitlines()]


def _got(event: NodeProgress) -> str:
    of = f" of {event.total:,}" if event.total else ""
    text = f"{event.done:,}{of} {event.unit} · {spending(event.counts)}"
    return f"{text} · {safe(event.note)}" if event.note else text


def _batch_name(event: BatchProgress) -> str:
    """The provider's name of a batch, which its own pages show; before there is one, the beginning of ours."""
    return safe(event.remote) or event.batch[:8]


def _of_batch(event: BatchProgress) -> str:
    failed = f", {event.failed:,} failed" if event.failed else ""
    return f"{safe(event.status)} · {event.done:,} of {_count(event.total, 'call')}{failed}"


def _with(results: list[NodeResult], status: str) -> int:
    return sum(result.status == status for result in results)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _up_to_date(models: int) -> str:
    return f"{_count(models, 'model')} {'is' if models == 1 else 'are'} up to date"
