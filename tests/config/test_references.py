"""What nodes name must be there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bqbuild.core.errors import Where
from bqbuild.core.records import NodeName, Ref
from tests.config.small import FILES, load, mistakes, models

TRAIN = "  - {name: trained, kind: train, from: kept, tokens: 10}\n"


def refs(root: Path, name: str, text: str) -> list[str]:
    return [str(ref) for ref in load(root, models(text)).nodes[NodeName(name)].refs]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  - {name: x, kind: python, from: [kept, notes], function: f.py:g}\n", ["kept", "notes"]),
        ("  - {name: x, kind: mix, from: [kept, {model: questions, weight: 2}]}\n", ["kept", "questions"]),
        ("  - {name: x, kind: mix, from: kept, weights: {from: clean_notes}}\n", ["kept", "clean_notes"]),
        (TRAIN + "  - {name: x, kind: train, from: kept, tokens: 1, base: trained}\n", ["kept", "trained"]),
        ("  - {name: x, kind: train, from: kept, tokens: 1, base: gpt2}\n", ["kept"]),
        (
            TRAIN + "  - {name: x, kind: evaluate, from: kept, models: {base: embedded, new: trained}}\n",
            ["kept", "trained"],
        ),
        (
            "  - name: x\n    kind: filter\n    from: kept\n    rules:\n      - name: r\n"
            "        decontaminate: {against: [notes], columns: [question], benchmark_columns: [q]}\n",
            ["kept", "notes"],
        ),
        ("  - {name: x, kind: filter, from: kept__rejects, rules: [{name: r, sql: x}]}\n", ["kept__rejects"]),
        ("  - {name: x, sql: \"select 1 from {{ ref('questions__errors') }}\"}\n", ["questions__errors"]),
        ("  - {name: x, sql: \"select 1 from {{ ref('capitals', 'kept') }} , {{ ref('kept') }}\"}\n", ["kept"]),
    ],
)
def test_nodes_that_are_named_become_references(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert refs(tmp_path, "x", text) == expected


def test_sources_in_two_parts_are_one_name(tmp_path: Path) -> None:
    changes: dict[str, str | bytes | None] = {
        "models/s.yml": "sources:\n  - {name: a.b, path: x.jsonl}\n",
        "models/x.sql": "select 1 from {{ source('a', 'b') }} join {{ source('a.b') }}",
    }
    project = load(tmp_path, changes)
    assert project.nodes[NodeName("x")].refs == (Ref(NodeName("a.b")),)
    assert project.nodes[NodeName("x")].body == 'select 1 from "a.b" join "a.b"'


def test_what_stands_in_sql_comments_is_no_reference(tmp_path: Path) -> None:
    text = "select '-- ' || \"/*\" -- {{ ref('nope') }}\n/* {{ ref('nope') }}\n */ from {{ ref('kept') }}"
    project = load(tmp_path, {"models/x.sql": text})
    assert project.nodes[NodeName("x")].refs == (Ref(NodeName("kept")),)


def test_references_made_by_macros_count(tmp_path: Path) -> None:
    changes: dict[str, str | bytes | None] = {
        "project/macros/deep/m.sql": "{% macro both(a, b) %}{{ ref(a) }}, {{ ref(b) }}{% endmacro %}",
        "models/x.sql": "{% set names = ['kept', 'questions'] %}select 1 from {{ both(*names) }}",
    }
    project = load(tmp_path, changes)
    assert [str(ref) for ref in project.nodes[NodeName("x")].refs] == ["kept", "questions"]
    assert project.nodes[NodeName("x")].body == 'select 1 from "kept", "questions"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select 1\nfrom {{ ref('kepd') }}", "models/x.sql:2:9: there is no model 'kepd' (did you mean 'kept'?)"),
        ("select 1 from {{ source('a', 'b') }}", "models/x.sql:1:18: there is no source 'a.b'"),
        ("select 1 from {{ ref('notes') }}", "models/x.sql:1:18: 'notes' is a source | write source('notes')"),
        ("select 1 from {{ source('kept') }}", "models/x.sql:1:18: 'kept' is a model | write ref('kept')"),
        (
            "select 1 from {{ ref('kept__errs') }}",
            "has no table 'kept__errs' | side tables: kept__rejects, kept__errors",
        ),
        ("select 1 from {{ ref('clean_notes__errors') }}", "has no table 'clean_notes__errors' | side tables: none"),
        ("select 1 from {{ ref() }}", "models/x.sql:1: ref() takes the name of one model"),
        ("select 1 from {{ ref(3) }}", "models/x.sql:1: ref() takes the name of one model"),
        ("select 1 from {{ source('a', 'b', 'c') }}", "source() takes the name of one source"),
        ("{{ config(nope=1) }} select 1", "models/x.sql:1: unknown key 'nope'"),
        ("\n{{ config(materialized='tabel') }} select 1", "models/x.sql:2: `materialized` must be table"),
        ("select 1 \x02", "models/x.sql:1: has a control character"),
        ("select {% for %}", "models/x.sql:1: broken Jinja"),
    ],
)
def test_broken_sql_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    [found] = mistakes(tmp_path, {"models/x.sql": text})
    assert expected in found


def test_a_disabled_node_is_not_there_and_says_so(tmp_path: Path) -> None:
    changes = models("  - name: off\n    kind: sql\n    sql: select 1\n    enabled: false\n")
    assert "off" not in load(tmp_path / "1", changes).nodes
    changes["models/x.sql"] = "select 1 from {{ ref('off') }}"
    assert mistakes(tmp_path / "2", changes) == ["models/x.sql:1:18: 'off' is disabled | see models/extra.yml:5:5"]
    changes["models/x.sql"] = "{{ config(enabled=false) }} select 1 from {{ ref('nope') }}"
    assert "x" not in load(tmp_path / "3", changes).nodes


def test_a_broken_node_is_not_missing_as_well(tmp_path: Path) -> None:
    text = FILES["models/models.yml"].replace("prompt: ask", "promt: ask")
    assert [line.split(" | ")[0] for line in mistakes(tmp_path, {"models/models.yml": text})] == [
        "models/models.yml:5:5: missing key 'prompt'",
        "models/models.yml:8:5: unknown key 'promt' (did you mean 'prompt'?)",
    ]


def test_a_missing_prompt_and_connection_are_told(tmp_path: Path) -> None:
    text = FILES["models/models.yml"].replace("prompt: ask", "prompt: aks").replace("llm: writer", "llm: judge")
    assert mistakes(tmp_path, {"models/models.yml": text}) == [
        "models/models.yml:8:13: there is no prompt 'aks' (did you mean 'ask'?)",
        "models/models.yml:9:10: there is no LLM connection 'judge' | connections of the target: writer",
    ]


def test_a_broken_prompt_is_not_missing_as_well(tmp_path: Path) -> None:
    [found] = mistakes(tmp_path, {"prompts/ask.md": "{{ a | nope }}"})
    assert found == "prompts/ask.md:1: unknown filter 'nope'"


def test_a_judge_names_its_prompt_and_connection(tmp_path: Path) -> None:
    text = (
        "  - name: x\n    kind: filter\n    from: kept\n    rules:\n      - name: r\n"
        "        judge: {prompt: nope, llm: nope, accept: ok, output: {columns: {_bq_id: string}}}\n"
    )
    assert [line.split(" | ")[0] for line in mistakes(tmp_path, models(text))] == [
        "models/extra.yml:7:25: there is no prompt 'nope'",
        "models/extra.yml:7:36: there is no LLM connection 'nope'",
        "models/extra.yml:7:73: the column name '_bq_id' is bqbuild's own",
    ]


def test_a_matrix_key_that_the_prompt_never_reads_is_a_warning(tmp_path: Path) -> None:
    text = FILES["models/models.yml"].replace("undergraduate]}", "undergraduate], tone: [dry]}")
    assert load(tmp_path, {"models/models.yml": text}).warnings == (
        ("the prompt 'ask' never reads the matrix key 'tone'", Where("models/models.yml", 10, 47)),
    )


def test_an_output_column_may_not_be_a_key_of_the_matrix(tmp_path: Path) -> None:
    text = FILES["models/models.yml"].replace("{question: string}", "{question: string, grade: string}")
    assert mistakes(tmp_path, {"models/models.yml": text}) == [
        "models/models.yml:11:56: the output column 'grade' is a key of the matrix already"
    ]


def test_include_and_exclude_of_a_matrix_take_mappings(tmp_path: Path) -> None:
    text = FILES["models/models.yml"].replace("undergraduate]}", "undergraduate], include: [x]}")
    assert mistakes(tmp_path, {"models/models.yml": text}) == [
        "models/models.yml:10:57: `matrix.include` takes mappings of key to value"
    ]


def test_the_text_of_a_mix_is_checked(tmp_path: Path) -> None:
    text = (
        "  - name: m\n    kind: mix\n    from: kept\n    text: |\n      Q: {{ question }}\n      {{ answer | nope }}\n"
    )
    assert mistakes(tmp_path / "1", models(text)) == ["models/extra.yml:7: unknown filter 'nope'"]
    project = load(tmp_path / "2", models(text.replace(" | nope", "")))
    found = project.row_template("Q: {{ question }}\n{{ answer }}\n", Where("models/extra.yml", 6))
    assert found.columns["answer"] == Where("models/extra.yml", 7)
    assert found.render({"question": "1+1?", "answer": 2}) == "Q: 1+1?\n2\n"


def test_sql_from_outside_is_rendered_by_the_same_rules(tmp_path: Path) -> None:
    project = load(tmp_path)
    found = project.render_sql("select 1 from {{ ref('kept') }}", Where("project/tests/t.sql", 1))
    assert (found.body, found.refs) == ('select 1 from "kept"', (Ref(NodeName("kept")),))
