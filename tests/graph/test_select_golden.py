"""Projects and expressions with dbt's answers (dbt-core 1.12.6), written down once: what dbt selects, bqbuild selects.

A case is what --select and --exclude were given, and names, or `error`. `test_select_against_dbt.py` makes new ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bqbuild.config.project import load_project
from bqbuild.core.errors import UsageError
from bqbuild.graph.dag import build_dag
from bqbuild.graph.select import select
from tests.graph.random_selections import Made, Model, write_bqbuild

GOLDEN: list[dict[str, Any]] = json.loads(Path(__file__).with_name("golden_selections.json").read_text("utf-8"))


@pytest.mark.parametrize("number", range(len(GOLDEN)))
def test_what_dbt_selected_is_selected(tmp_path: Path, number: int) -> None:
    known = GOLDEN[number]
    made = Made(tuple(Model(**model) for model in known["models"]), known["sources"], known["selectors"])
    write_bqbuild(made, tmp_path)
    project = load_project(tmp_path, environ={})
    dag = build_dag(project.nodes)
    differences = []
    for include, exclude, theirs in known["cases"]:
        try:
            chosen = select(dag, project.nodes, include or (), exclude or (), project.selectors)
            ours = " ".join(sorted(chosen.names))
        except UsageError:
            ours = "error"
        if ours != theirs:
            differences.append((include, exclude, theirs, ours))
    assert not differences
