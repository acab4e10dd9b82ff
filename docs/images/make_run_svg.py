"""Draws docs/images/run.svg: what `bqbuild run` showed, replayed from a finished run's results.

    .venv/bin/python docs/images/make_run_svg.py [RUN_RESULTS] [SVG]

RUN_RESULTS is `.bqbuild/dev/run_results.json` where it is not given. Models that were cached are not shown, as in the
run itself: take the results of a run that built everything. The seconds of the last line are the sum over models.
"""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from bqbuild.cli.progress import Display
from bqbuild.cli.settings import Settings
from bqbuild.core.events import Counts, NodeFinished, NodeResult, RunFinished, Tested
from bqbuild.core.hashing import Digest
from bqbuild.core.records import NodeName

IMAGE = Path(__file__).with_name("run.svg")
WIDTH = 132


def result(entry: dict[str, Any]) -> NodeResult:
    """An entry of run_results.json as the event that the display saw."""
    calls, tokens = entry["calls"], entry["tokens"]
    counts = Counts(
        entry["rows"], calls["new"], calls["cached"], calls["failed"], tokens["input"], tokens["output"], entry["cost"]
    )
    return NodeResult(
        NodeName(entry["name"]),
        entry["kind"],
        entry["status"],
        entry["reason"],
        counts,
        entry["seconds"],
        Digest(entry["table"]) if entry["table"] else None,
        entry.get("sides", {}),
    )


def draw(document: dict[str, Any]) -> str:
    """The picture of a run."""
    display = Display(Settings())
    console = Console(
        record=True, file=io.StringIO(), width=WIDTH, highlight=False, soft_wrap=True, force_terminal=True
    )
    display._console = console  # the display writes to stderr; here it is to be recorded
    results = tuple(result(entry) for entry in document["results"])
    console.print(f"$ bqbuild {document['metadata']['command']}", style="bold")
    for entry in results:
        display.listen(NodeFinished(entry))
    for test in document.get("tests", ()):
        display.listen(Tested(test["name"], test["model"], test["status"], test["failures"]))
    display.listen(RunFinished(results, document["totals"]["seconds"]))
    # a picture in a README loads nothing from elsewhere: the reader's own fonts do
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="bqbuild"), flags=re.DOTALL)


def main() -> None:
    """Read the results and write the picture."""
    given = [Path(argument) for argument in sys.argv[1:]]
    results = given[0] if given else Path(".bqbuild/dev/run_results.json")
    image = given[1] if len(given) > 1 else IMAGE
    image.write_text(draw(json.loads(results.read_text("utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
