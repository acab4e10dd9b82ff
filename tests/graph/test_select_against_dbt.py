"""Random projects and random expressions: bqbuild selects what dbt selects. Needs dbt; see CONTRIBUTING.md."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bqbuild.config.project import load_project
from bqbuild.core.errors import UsageError
from bqbuild.graph.dag import build_dag
from bqbuild.graph.select import select
from tests.graph.random_selections import Made, Question, make_project, make_question, write_bqbuild, write_dbt

DBT = os.environ.get("BQBUILD_DBT", "")
PROJECTS = int(os.environ.get("BQBUILD_DBT_PROJECTS", "10"))
SEED = int(os.environ.get("BQBUILD_DBT_SEED", "1"))
QUESTIONS = 200

pytestmark = pytest.mark.skipif(not DBT, reason="BQBUILD_DBT names no dbt")


def test_random_expressions_select_what_dbt_selects(tmp_path: Path) -> None:
    asked = []
    for number in range(PROJECTS):
        random = Random(f"{SEED}/{number}")
        made = make_project(random)
        write_dbt(made, tmp_path / f"dbt{number}")
        write_bqbuild(made, tmp_path / f"bqbuild{number}")
        asked.append((made, [make_question(random, made) for _ in range(QUESTIONS)]))
    of_dbt = _dbt(tmp_path, asked)
    differences = []
    for number, (_, questions) in enumerate(asked):
        ours = _bqbuild(tmp_path / f"bqbuild{number}", questions)
        for question, theirs, own in zip(questions, of_dbt[number], ours, strict=True):
            if theirs != own:
                differences.append({"project": number, "question": question, "dbt": theirs, "bqbuild": own})
    shown = "\n".join(json.dumps(each) for each in differences[:20])
    assert not differences, f"{len(differences)} of {PROJECTS * QUESTIONS} differ; seed {SEED}\n{shown}"


def _dbt(folder: Path, asked: Sequence[tuple[Made, list[Question]]]) -> list[list[Any]]:
    """dbt's answers by project: names, or `error`."""
    lines = [
        json.dumps({"root": str(folder / f"dbt{number}"), "selectors": made.selectors, "asked": questions})
        for number, (made, questions) in enumerate(asked)
    ]
    done = subprocess.run(
        [Path(DBT).parent / "python", Path(__file__).parent / "dbt_answers.py"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        env={**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "0", "PYTHONPATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line.removeprefix("ANSWERS ")) for line in done.stdout.splitlines() if line[:8] == "ANSWERS "]
    return [[_names(answer) for answer in answers] for answers in found]


def _names(answer: Any) -> Any:
    """`model.shop.a` is bqbuild's `a`."""
    return "error" if isinstance(answer, dict) else sorted(unique.split(".", 2)[2] for unique in answer)


def _bqbuild(root: Path, questions: Sequence[Question]) -> list[Any]:
    project = load_project(root, environ={})
    dag = build_dag(project.nodes)
    found: list[Any] = []
    for include, exclude in questions:
        try:
            chosen = select(dag, project.nodes, include or (), exclude or (), project.selectors)
            found.append(sorted(map(str, chosen.names)))
        except UsageError:
            found.append("error")
    return found
