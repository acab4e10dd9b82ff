from __future__ import annotations

import json

from tests.cli.conftest import Bqbuild
from tests.space import Space


def test_a_tree_goes_up_to_the_sources(bqbuild: Bqbuild, capitals: Space) -> None:
    assert bqbuild("lineage", "questions").out.splitlines() == [
        "questions (synthesize)",
        "└─ clean_notes (sql)",
        "   └─ notes (source)",
    ]


def test_down_goes_to_what_is_made_from_it(bqbuild: Bqbuild, capitals: Space) -> None:
    assert bqbuild("lineage", "answers", "--down").out.splitlines() == [
        "answers (refine)",
        "└─ labelled (annotate)",
        "   └─ kept (filter)",
    ]


def test_a_column_is_followed_through_prompts_and_sql(bqbuild: Bqbuild, built: Space) -> None:
    lines = bqbuild("lineage", "kept", "--column", "question").out.splitlines()
    assert lines == bqbuild("lineage", "kept.question").out.splitlines()
    assert lines[:5] == [
        "kept.question",
        "└─ labelled.question (carried)",
        "   └─ answers.question (carried)",
        "      └─ questions.question (carried)",
        "         ├─ clean_notes.text (prompt)",
    ]


def test_a_column_reaches_what_is_made_from_it(bqbuild: Bqbuild, built: Space) -> None:
    document = bqbuild("lineage", "clean_notes.topic", "--down", "--json").json()
    reached = {(edge["to"]["model"], edge["to"]["column"]) for edge in document["edges"]}
    assert ("questions", "question") in reached
    assert ("kept", "difficulty") in reached
    assert ("kept", "text") not in reached


def test_json_has_nodes_edges_and_the_origins_of_columns(bqbuild: Bqbuild, built: Space) -> None:
    document = bqbuild("lineage", "--json").json()
    assert json.loads(built.read(".bqbuild/dev/lineage.json"))["nodes"] == document["nodes"]
    nodes = {node["name"]: node for node in document["nodes"]}
    assert {"from": "notes", "to": "clean_notes", "side": ""} in document["edges"]
    origins = {column["name"]: column["from"] for column in nodes["questions"]["columns"]}
    assert origins["grade"] == []
    assert origins["answer"] == [
        {"model": "clean_notes", "column": "text", "via": "prompt"},
        {"model": "clean_notes", "column": "topic", "via": "prompt"},
    ]


def test_dot_and_mermaid_draw_what_is_selected(bqbuild: Bqbuild, capitals: Space) -> None:
    dot = bqbuild("lineage", "--select", "clean_notes", "questions", "--format", "dot").out
    assert '"clean_notes" -> "questions";' in dot
    assert "notes" not in dot.replace("clean_notes", "")
    mermaid = bqbuild("lineage", "questions", "--format", "mermaid").out
    assert mermaid.startswith("flowchart LR\n")
    assert "n1 --> n2" in mermaid


def test_openlineage_has_an_event_a_model_with_column_lineage(bqbuild: Bqbuild, built: Space) -> None:
    events = bqbuild("lineage", "--format", "openlineage").json()
    assert [event["job"]["name"] for event in events] == ["clean_notes", "questions", "answers", "labelled", "kept"]
    facets = events[1]["outputs"][0]["facets"]
    fields = facets["columnLineage"]["fields"]["answer"]["inputFields"]
    assert {field["field"] for field in fields} == {"text", "topic"}
    assert events[0]["job"]["facets"]["sql"]["query"].startswith("select id")


def test_unknown_models_and_columns_offer_the_nearest(bqbuild: Bqbuild, built: Space) -> None:
    assert "did you mean 'kept'?" in bqbuild("lineage", "keptt").err
    done = bqbuild("lineage", "kept.questio")
    assert done.code == 2
    assert "did you mean 'question'?" in done.err
