"""Finding nodes: YAML, SQL, defaults by folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from bqbuild.config.specs import SqlSpec
from bqbuild.core.errors import Where
from bqbuild.core.records import Node, NodeName, Ref
from tests.config.small import FILES, load, mistakes, models

SETTINGS = "project/bqbuild.yml"


def node(root: Path, name: str, changes: dict[str, str | bytes | None]) -> Node:
    return load(root, changes).nodes[NodeName(name)]


def test_the_small_project_is_read_whole(tmp_path: Path) -> None:
    project = load(tmp_path)
    assert {name: each.kind for name, each in project.nodes.items()} == {
        "notes": "source",
        "clean_notes": "sql",
        "questions": "synthesize",
        "kept": "filter",
    }
    clean = project.nodes[NodeName("clean_notes")]
    assert clean.body == 'select id, topic from "notes" where n >= 3\n'
    assert clean.refs == (Ref(NodeName("notes")),)
    assert clean.fqn == ("capitals", "staging", "clean_notes")
    assert clean.path == "models/staging/clean_notes.sql"
    assert clean.spec.tags == ["staging"]
    questions = project.nodes[NodeName("questions")]
    assert questions.where == Where("models/models.yml", 5, 5)
    assert questions.places["prompt"] == Where("models/models.yml", 8, 5)
    assert questions.places["output.columns.question"] == Where("models/models.yml", 11, 38)
    assert project.selectors == {"questions": "kind:synthesize+"}
    assert project.warnings == ()
    assert set(project.files) == set(FILES)
    assert {each.patch for each in project.nodes.values()} == {""}


def test_selectors_may_be_written_as_in_dbts_file_of_selectors(tmp_path: Path) -> None:
    listed = "name: a\nselectors:\n- {name: s, description: x, definition: {union: [{tag: a}, b]}}\n"
    assert load(tmp_path, {"project/bqbuild.yml": listed + "vars: {min_words: 3}\n"}).selectors == {
        "s": {"union": [{"tag": "a"}, "b"]}
    }


def test_a_model_knows_the_yaml_file_that_describes_it(tmp_path: Path) -> None:
    described = {"models/extra.yml": "models: [{name: clean_notes, description: Notes.}]\n"}
    assert node(tmp_path, "clean_notes", described).patch == "models/extra.yml"


def test_config_in_sql_wins_over_yaml_and_yaml_over_the_folder(tmp_path: Path) -> None:
    found = node(
        tmp_path,
        "clean_notes",
        {
            "models/staging/clean_notes.sql": (
                "{{ config(materialized='ephemeral', tags='mine', meta={'a': 1}) }}\nselect 1 as x"
            ),
            "models/extra.yml": """\
                models:
                  - name: clean_notes
                    description: Notes that are long enough.
                    materialized: view
                    tags: [theirs, mine]
                    meta: {b: 2}
                    columns: {x: integer}
                """,
        },
    )
    assert isinstance(found.spec, SqlSpec)
    assert found.spec.materialized == "ephemeral"
    assert found.spec.tags == ["staging", "theirs", "mine"]
    assert found.spec.meta == {"a": 1, "b": 2}
    assert found.spec.description == "Notes that are long enough."
    assert found.spec.columns[0].type == "integer"
    assert found.places["description"] == Where("models/extra.yml", 3, 5)
    assert found.places["materialized"] == Where("models/staging/clean_notes.sql", 1)
    assert found.places["tags"] == Where("models/staging/clean_notes.sql", 1)


def test_a_sql_model_may_stand_in_yaml(tmp_path: Path) -> None:
    found = node(
        tmp_path, "inline", models("  - name: inline\n    sql: |\n      select 1\n      from {{ ref('kept') }}\n")
    )
    assert found.kind == "sql"
    assert found.body == 'select 1\nfrom "kept"\n'


@pytest.mark.parametrize(
    "text",
    [
        "models: {staging: {deep: {tags: [a], +materialized: view}, +tags: b}}",
        "models: {capitals: {staging: {deep: {+tags: [a], materialized: view}, tags: [b]}}}",
        "models: {+tags: b, staging: {deep: {tags: a, +materialized: view}}}",
    ],
)
def test_folder_defaults_nest_and_add_up(tmp_path: Path, text: str) -> None:
    changes: dict[str, str | bytes | None] = {
        SETTINGS: f"name: capitals\nvars: {{min_words: 3}}\n{text}\n",
        "models/staging/deep/x.sql": "select 1 as x",
    }
    project = load(tmp_path, changes)
    deep = project.nodes[NodeName("x")].spec
    assert sorted(deep.tags) == ["a", "b"]
    assert deep.materialized == "view"
    assert project.nodes[NodeName("clean_notes")].spec.tags == ["b"]
    assert project.nodes[NodeName("clean_notes")].spec.materialized == "table"


def test_a_default_that_a_kind_has_no_key_for_is_not_its_own(tmp_path: Path) -> None:
    text = "name: capitals\nvars: {min_words: 3}\nmodels: {llm: writer, max_error_rate: 0.5}\n"
    project = load(tmp_path, {SETTINGS: text})
    assert project.nodes[NodeName("questions")].spec.max_error_rate == 0.5


def test_a_wrong_default_is_told_where_it_was_written(tmp_path: Path) -> None:
    text = "name: capitals\nvars: {min_words: 3}\nmodels:\n  staging:\n    materialized: veiw\n"
    assert mistakes(tmp_path, {SETTINGS: text}) == [
        "project/bqbuild.yml:5:19: `materialized` must be table, view or ephemeral, not 'veiw' (did you mean 'view'?)"
    ]
    text = "name: capitals\nvars: {min_words: 3}\nmodels:\n  staging:\n    tgs: x\n"
    assert mistakes(tmp_path, {SETTINGS: text}) == ["project/bqbuild.yml:5:5: unknown key 'tgs' (did you mean 'tags'?)"]


def test_defaults_for_a_folder_that_is_not_there_are_a_warning(tmp_path: Path) -> None:
    text = "name: capitals\nvars: {min_words: 3}\nmodels: {stagin: {tags: x}}\n"
    assert load(tmp_path, {SETTINGS: text}).warnings == (
        ("there is no folder 'models/stagin': its defaults hold for nothing", Where("project/bqbuild.yml", 3, 10)),
    )


def test_values_are_rendered_and_texts_over_rows_are_not(tmp_path: Path) -> None:
    found = node(
        tmp_path,
        "m",
        models("""\
          - name: m
            kind: mix
            from: kept
            rows: "{{ var('min_words') * 10 }}"
            description: "{{ not rendered"
            text: "{{ question }}"
            tags: ["{{ target.name }}"]
        """),
    )
    assert found.spec.rows == 30
    assert found.spec.text == "{{ question }}"
    assert found.spec.tags == ["dev"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  - {name: x, kind: refin}\n", "extra.yml:2:21: unknown kind 'refin' (did you mean 'refine'?)"),
        ("  - {name: x}\n", "extra.yml:2:6: missing key 'kind' | kinds: sql, python, synthesize"),
        ("  - {name: x, kind: sql}\n", "missing key 'sql'"),
        ("  - {name: x, kind: source, path: y}\n", "extra.yml:2:21: a source stands under `sources:`"),
        ("  - just text\n", "extra.yml:2:5: an item of `models` must be a mapping"),
        ("  - {name: kept, kind: sql, sql: select 1}\n", "duplicate name 'kept' | models/extra.yml:2:6 has it already"),
        ("  - {name: KEPT, kind: sql, sql: select 1}\n", "duplicate name 'kept' | models/extra.yml:2:6 has it already"),
        (
            "  - {name: clean_notes, description: a}\n  - {name: clean_notes}\n",
            "extra.yml:3:6: duplicate name 'clean_notes'",
        ),
        ("  - {name: clean_notes, kind: mix, from: kept}\n", "duplicate name 'clean_notes'"),
        ("  - {name: 'a b', kind: sql, sql: select 1}\n", "`name` must be letters, digits and `_`"),
        ("  - {name: x, sql: 'select {{ var(\"nope\") }}'}\n", "extra.yml:2:20: there is no variable 'nope'"),
        (
            "  - {name: x, sql: 'select 1', meta: {a: '{{ vra(1) }}'}}\n",
            "extra.yml:2:42: Jinja failed: 'vra' is undefined",
        ),
        ("  - {name: _bq_x, sql: 'select 1'}\n", "extra.yml:2:6: the name '_bq_x' is bqbuild's own"),
        ("  - {name: kept__rejects, sql: 'select 1'}\n", "is the name of a side table of 'kept'"),
    ],
)
def test_broken_declarations_are_told_with_their_place(tmp_path: Path, text: str, expected: str) -> None:
    found = mistakes(tmp_path, models(text))
    assert any(expected in line for line in found), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model:\n  - {}\n", "models/x.yml:1:1: unknown key 'model' (did you mean 'models'?)"),
        ("version: 2\n", "models/x.yml:1:1: unknown key 'version' | a file of models has `sources:` and `models:`"),
        ("- a\n", "models/x.yml:1: must have `sources:` or `models:`"),
        ("models: {a: b}\n", "models/x.yml:1:9: `models` must be a list"),
        (
            "sources:\n  - {name: s, kind: sql, path: x}\n",
            "models/x.yml:2:21: a source has no kind 'sql' | models stand under `models:`",
        ),
        ("sources:\n  - {name: s}\n", "models/x.yml:2:5: missing key 'path'"),
        (b"models:\n  - name: caf\xe9\n", "models/x.yml:2:14: is not UTF-8 | save the file as UTF-8"),
    ],
)
def test_broken_files_are_told_with_their_place(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert mistakes(tmp_path, {"models/x.yml": text}) == [expected]


def test_empty_files_and_sections_are_no_mistake(tmp_path: Path) -> None:
    load(tmp_path, {"models/x.yml": "", "models/y.yml": "models:\nsources:\n", "models/z.yaml": "# nothing\n"})


def test_hidden_files_and_other_files_are_left_alone(tmp_path: Path) -> None:
    load(tmp_path, {"models/.x.yml": "broken: [", "models/.git/x.yml": "[", "models/f.py": "x", "prompts/.x.md": ""})


def test_all_mistakes_come_together_sorted_by_place(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        {
            "models/a.sql": "select {{ nope }}",
            "models/b.yml": "models: [\n",
            "models/c.yml": "models:\n  - {name: c, kind: filter, from: nope, rules: [{name: r, sql: x}]}\n",
            "prompts/d.md": "{{ a | nope }}",
            "project/macros/e.sql": "{% macro e( %}",
            "project/bqbuild.yml": "name: capitals\nvars: {min_words: 3}\nfoo: 1\n",
        },
    )
    assert [line.split(":")[0] for line in found] == ["project/bqbuild.yml"]
    files = {"project/bqbuild.yml": FILES["project/bqbuild.yml"]}
    found = mistakes(
        tmp_path,
        {
            "models/a.sql": "select {{ nope }}",
            "models/b.yml": "models: [\n",
            "models/c.yml": "models:\n  - {name: c, kind: filter, from: nope, rules: [{name: r, sql: x}]}\n",
            "prompts/d.md": "{{ a | nope }}",
            "project/macros/e.sql": "{% macro e( %}",
            **files,
        },
    )
    assert [line.split(":")[0] for line in found] == [
        "models/a.sql",
        "models/b.yml",
        "models/c.yml",
        "project/macros/e.sql",
        "prompts/d.md",
    ]
