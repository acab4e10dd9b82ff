"""The mutation matrix: `PYTHONPATH=. python tests/benchmarks/mutation_matrix.py [--only NAME]`. Not a test.

A project of eight models over two sources is built; then each change of the data is made and run, and after it each
change of the definition; and both at once, from the first build. Each time a clean build of the same files says what
had to be sent (what it asks for and was never answered before) and what the tables must be. Prints a table for the
README: requests sent, and beside them the ideal where it is another number; below it what was stale or built in vain.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.llm_server import LlmServer  # found from wherever the benchmark is started
from tests.mutations import DATA, DEFINITION, NOTHING, Edit, Outcome, Subject, answer, first_build
from tests.space import Space


@dataclass(frozen=True)
class Cell:
    """What came of one change of the definition: after a change of the data, and together with it."""

    after: Outcome
    at_once: Outcome

    def shown(self) -> str:
        """The requests sent for the second change, and for both at once, each with its ideal where it differs."""
        return f"{_sent(self.after)} / {_sent(self.at_once)}"


def measure(root: Path, definitions: Mapping[str, Edit], tell: Callable[[str], None]) -> dict[str, dict[str, Cell]]:
    """All cells by definition and data, and by data alone under the name ''."""
    with LlmServer(answer) as server, LlmServer(answer) as other:
        base, clean = first_build(root / "base", server), Space(root / "clean", other)
        table: dict[str, dict[str, Cell]] = {name: {} for name in ("", *definitions)}
        for data, data_edit in {"": NOTHING, **DATA}.items():
            tell(data or "no change of the data")
            edited = base.copy(root / "edited")
            alone = edited.step(data_edit, clean=clean)
            table[""][data] = Cell(alone, alone)
            for name, edit in definitions.items():
                after = _copied(edited, root).step(edit, clean=clean)
                at_once = _copied(base, root).step(data_edit, edit, clean=clean) if data else after
                table[name][data] = Cell(after, at_once)
            _remove(root / "edited")
    return table


def show(table: Mapping[str, Mapping[str, Cell]]) -> Iterator[str]:
    """The lines of the Markdown table."""
    columns = ["", *DATA]
    yield f"| requests sent | {' | '.join(name or 'definition alone' for name in columns)} |"
    yield f"|{'---|' * (len(columns) + 1)}"
    for name, cells in table.items():
        if not name:
            shown = [_sent(cells[data].after) for data in columns]
        else:
            shown = [_sent(cells[""].after), *(cells[data].shown() for data in DATA)]
        yield f"| {name or 'data alone'} | {' | '.join(shown)} |"


def _sent(outcome: Outcome) -> str:
    return str(outcome.sent) if outcome.sent == outcome.ideal else f"**{outcome.sent} (ideal {outcome.ideal})**"


def _copied(subject: Subject, root: Path) -> Subject:
    _remove(root / "cell")
    return subject.copy(root / "cell")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Print the table; exit with 1 where anything is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="one change of the definition instead of all", choices=list(DEFINITION))
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as root:
        chosen = {only: DEFINITION[only]} if only else DEFINITION
        table = measure(Path(root), chosen, lambda line: print(f"… {line}", file=sys.stderr, flush=True))
    print("\n".join(show(table)))
    outcomes = [
        (f"{name or 'data alone'} × {data or 'nothing'}", outcome)
        for name, cells in table.items()
        for data, cell in cells.items()
        for outcome in ((cell.after, cell.at_once) if name and data else (cell.after,))
    ]
    wrong = [(place, outcome) for place, outcome in outcomes if not outcome.is_perfect]
    for place, outcome in wrong:
        print(f"{place}: {outcome}")
    excess = sum(max(0, outcome.sent - outcome.ideal) for _, outcome in outcomes)
    stale = sum(len(outcome.stale) for _, outcome in outcomes)
    wasted = sum(len(outcome.wasted) for _, outcome in outcomes)
    print(f"\n{len(outcomes)} runs: {excess} requests too many, {stale} stale tables, {wasted} nodes built in vain.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
