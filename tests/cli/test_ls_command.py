from __future__ import annotations

import json

from tests.cli.conftest import Bqbuild
from tests.space import Space


def test_names_come_one_a_line_in_the_order_of_the_graph(bqbuild: Bqbuild, capitals: Space) -> None:
    done = bqbuild("ls")
    assert done.code == 0
    assert done.out == "notes\nclean_notes\nquestions\nanswers\nlabelled\nkept\n"
    assert done.err == ""


def test_json_is_one_object_a_line(bqbuild: Bqbuild, capitals: Space) -> None:
    lines = bqbuild("ls", "--output", "json", "--select", "clean_notes").out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "name": "clean_notes",
            "kind": "sql",
            "path": "models/staging/clean_notes.sql",
            "tags": ["staging"],
            "depends_on": ["notes"],
        }
    ]


def test_a_path_is_told_once(bqbuild: Bqbuild, capitals: Space) -> None:
    assert bqbuild("ls", "--output", "path").out == "models/models.yml\nmodels/staging/clean_notes.sql\n"


def test_select_takes_several_models_as_dbt_does(bqbuild: Bqbuild, capitals: Space) -> None:
    together = bqbuild("ls", "--select", "questions", "tag:staging", "--exclude", "nothing_else", "kept")
    assert together.out == "clean_notes\nquestions\n"
    assert bqbuild("ls", "-s", "questions", "-s", "tag:staging").out == together.out
    assert bqbuild("ls", "--select", "questions tag:staging").out == together.out
    assert bqbuild("ls", "--select=questions").out == "questions\n"


def test_graph_operators_and_selectors_select(bqbuild: Bqbuild, capitals: Space) -> None:
    assert bqbuild("ls", "-s", "+questions").out == "notes\nclean_notes\nquestions\n"
    assert bqbuild("ls", "-s", "selector:questions").out == "questions\nanswers\nlabelled\nkept\n"


def test_a_selection_of_nothing_warns_and_succeeds(bqbuild: Bqbuild, capitals: Space) -> None:
    done = bqbuild("ls", "-s", "questons")
    assert done.code == 0
    assert done.out == ""
    assert "'questons' matches no model; did you mean 'questions'?" in done.err
    assert bqbuild("ls", "-s", "questons", "--quiet").err == ""
