"""CPU seconds and memory of whole processes on a layered graph of SQL models, beside dbt on the same graph.

Run as `python tests/benchmarks/builds.py [--dbt PATH] [SIZE …]`. `--dbt` (else `BQBUILD_DBT`) names a `dbt` with
dbt-duckdb; without one its column is empty. The machine's load shows in wall time, not in these figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.layers import ROOT, layers, leaf, model_path, write_bqbuild, write_dbt

SIZES = (100, 1000)


@dataclass(frozen=True)
class Cost:
    """What one process used: CPU seconds, its peak memory in MB, and how many models it built, where it builds any."""

    seconds: float
    memory: float
    built: int | None = None


def measure(command: Sequence[str], folder: Path) -> Cost:
    """Run a command, which must succeed."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=output, env={**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "0"}
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode('utf-8', 'replace')[-2000:]}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


class Bqbuild:
    """bqbuild on a project of its own."""

    def __init__(self, folder: Path, models: dict[str, list[str]]) -> None:
        self.folder = folder
        write_bqbuild(folder, models)

    def call(self, *arguments: str) -> Cost:
        """One command."""
        return measure([sys.executable, "-m", "bqbuild.cli.main", *arguments], self.folder)

    def run(self) -> Cost:
        """`run`, and how many models it built."""
        cost = self.call("--quiet", "run")
        results = json.loads((self.folder / ".bqbuild/dev/run_results.json").read_text("utf-8"))["results"]
        return Cost(cost.seconds, cost.memory, sum(result["status"] == "success" for result in results))


class Dbt:
    """dbt on a project of its own."""

    def __init__(self, folder: Path, models: dict[str, list[str]], program: str) -> None:
        self.folder = folder
        self.program = program
        write_dbt(folder, models)
        self.call("seed")

    def call(self, *arguments: str) -> Cost:
        """One command."""
        places = ["--profiles-dir", ".", "--project-dir", "."] if not arguments[0].startswith("-") else []
        return measure([self.program, "--quiet", *arguments, *places], self.folder)

    def run(self) -> Cost:
        """`run` of what is modified, as dbt's users do it: with the manifest of the run before as state."""
        state = self.folder / "state"
        selected = ["--select", "state:modified+", "--state", "state"] if state.is_dir() else []
        cost = self.call("run", *selected)
        results = json.loads((self.folder / "target/run_results.json").read_text("utf-8"))["results"]
        state.mkdir(exist_ok=True)
        (state / "manifest.json").write_bytes((self.folder / "target/manifest.json").read_bytes())
        return Cost(cost.seconds, cost.memory, len(results))


def scenario(tool: Bqbuild | Dbt, models: dict[str, list[str]]) -> dict[str, Cost]:
    """Every figure of one tool, in an order in which each builds on the one before."""
    root, last = model_path(tool.folder, ROOT), model_path(tool.folder, leaf(models))
    costs = {"--help": tool.call("--help"), "cold parse": tool.call("parse"), "first run": tool.run()}
    tool.call("ls")
    costs["warm ls"] = tool.call("ls")
    tool.run()
    costs["nothing changed"] = tool.run()
    last.write_text(last.read_text("utf-8").replace("+ 1 as a", "+ 2 as a"), "utf-8")
    costs["leaf changed"] = tool.run()
    root.write_text("-- another word\n" + root.read_text("utf-8"), "utf-8")
    costs["comment on the root"] = tool.run()
    root.write_text(root.read_text("utf-8").replace("* 2 as c", "* 3 as c"), "utf-8")
    costs["unread column of the root"] = tool.run()
    return costs


def main() -> None:
    """Measure, and print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--dbt", default=os.environ.get("BQBUILD_DBT"))
    given = parser.parse_args()
    for size in given.sizes:
        models = layers(size)
        with tempfile.TemporaryDirectory() as scratch:
            ours = scenario(Bqbuild(Path(scratch, "bqbuild"), models), models)
            theirs = scenario(Dbt(Path(scratch, "dbt"), models, given.dbt), models) if given.dbt else {}
        print(f"\n{size:,} models\n")
        print("| | bqbuild: CPU s, MB, built | dbt: CPU s, MB, built | dbt / bqbuild |")
        print("|---|--:|--:|--:|")
        for name, cost in ours.items():
            other = theirs.get(name)
            ratio = f"{other.seconds / cost.seconds:.1f}" if other else ""
            print(f"| {name} | {shown(cost)} | {shown(other) if other else ''} | {ratio} |")


def shown(cost: Cost) -> str:
    """A cell of the table."""
    built = "" if cost.built is None else f", {cost.built:,}"
    return f"{cost.seconds:.2f}, {cost.memory:.0f}{built}"


if __name__ == "__main__":
    main()
