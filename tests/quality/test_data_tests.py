from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import duckdb
import pytest

from bqbuild.config.project import Project, load_project
from bqbuild.core.errors import BuildError, ProjectErrors
from bqbuild.quality.data_tests import DataTest, collect_tests, run_test

FILES = {
    "project/bqbuild.yml": "name: small\n",
    "project/profiles.yml": "default: dev\ntargets: {dev: {}}\n",
    "project/sources/notes.jsonl": '{"id": 1}\n',
    "models/notes.yml": """
        sources:
          - name: raw.notes
            path: sources/notes.jsonl
        models:
          - name: notes
            columns:
              id:
                tests: [not_null, unique]
              topic:
                tests:
                  - accepted_values: {values: [maths, physics], severity: warn}
                  - not_null: {where: "id > 1", name: topic_of_later_notes}
              parent:
                tests:
                  - relationships: {to: "source('raw', 'notes')", field: id}
            tests:
              - unique: {columns: [id, topic]}
              - expression: "id < 100 and now() > '2020-01-01' -- or so"
        """,
    "models/notes.sql": "select * from {{ source('raw', 'notes') }}\n",
    "project/tests/few_notes.sql": """
        -- more than two is too many
        select count(*) as n from {{ ref('notes') }} having n > 2;
        """,
}

ROWS = """
    (1, 'maths', NULL), (2, 'physics', 1), (2, 'art', 7), (NULL, NULL, NULL), (3, NULL, 2), (200, 'maths', 1)
"""


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE notes AS SELECT * FROM (VALUES {ROWS}) AS v(id, topic, parent)")
        connection.execute('CREATE VIEW "raw.notes" AS SELECT id FROM notes WHERE id < 100')
        yield connection


@pytest.fixture
def tests_of(project_dir: Callable[[Mapping[str, str]], Path]) -> Callable[..., dict[str, DataTest]]:
    def collect(**changed: str) -> dict[str, DataTest]:
        files = {**FILES, **{name.replace("__", "/"): text for name, text in changed.items()}}
        return {test.name: test for test in collect_tests(loaded(project_dir(files)))}

    return collect


def loaded(root: Path) -> Project:
    return load_project(root, environ={})


def test_every_kind_of_test_finds_the_rows_that_are_wrong(
    tests_of: Callable[..., dict[str, DataTest]], connection: duckdb.DuckDBPyConnection
) -> None:
    results = {name: run_test(connection, test) for name, test in tests_of().items()}
    assert {name: (result.status, result.failures) for name, result in results.items()} == {
        "unique_notes_id_topic": ("pass", 0),
        "expression_notes": ("fail", 1),
        "not_null_notes_id": ("fail", 1),
        "unique_notes_id": ("fail", 1),
        "accepted_values_notes_topic": ("warn", 1),
        "topic_of_later_notes": ("fail", 1),
        "relationships_notes_parent": ("fail", 1),
        "few_notes": ("fail", 1),
    }
    assert results["unique_notes_id"].sample == ({"id": 2, "times": 2},)
    assert results["relationships_notes_parent"].sample == ({"parent": 7},)


def test_a_test_knows_where_it_is_written_and_what_it_reads(tests_of: Callable[..., dict[str, DataTest]]) -> None:
    tests = tests_of()
    related = tests["relationships_notes_parent"]
    assert (related.node, related.reads) == ("notes", ("notes", "raw.notes"))
    assert related.where.file == "models/notes.yml"
    assert related.where.line > 10
    assert (tests["few_notes"].node, tests["few_notes"].reads) == (None, ("notes",))
    assert tests["few_notes"].where.file == "project/tests/few_notes.sql"


def test_mistakes_are_told_together_each_with_its_place_and_the_nearest_right_name(
    project_dir: Callable[[Mapping[str, str]], Path],
) -> None:
    models = """
        models:
          - name: notes
            columns:
              id: {tests: [not_nul, {accepted_values: {vlues: [1]}}, {accepted_values: {}}]}
              parent: {tests: [{relationships: {to: note, field: id}}]}
              topic: {tests: [{not_null: {severity: fatal}}, {expression: "topic ="}]}
        """
    files = {
        **FILES,
        "models/notes.yml": models,
        "models/notes.sql": "select 1 as id",
        "project/tests/few_notes.sql": "select * from {{ ref('nots') }}",
    }
    project = loaded(project_dir(files))
    with pytest.raises(ProjectErrors) as raised:
        collect_tests(project)
    text = str(raised.value)
    assert "unknown test 'not_nul'" in text
    assert "did you mean 'not_null'?" in text
    assert "unknown key 'vlues' of the test 'accepted_values'" in text
    assert "`accepted_values` needs a list of `values`" in text
    assert "the test relates to 'note', which does not exist" in text
    assert "severity is error or warn, not 'fatal'" in text
    assert "`topic =` is not a SQL predicate" in text
    assert "project/tests/few_notes.sql" in text
    assert all(error.where is not None for error in raised.value.errors)


def test_a_test_that_does_not_fit_the_table_is_an_error_with_its_place(
    tests_of: Callable[..., dict[str, DataTest]], connection: duckdb.DuckDBPyConnection
) -> None:
    tests = tests_of(**{"project/tests/few_notes.sql": "select * from {{ ref('notes') }} where nothing = 1"})
    with pytest.raises(BuildError, match="test `few_notes`: Binder Error") as raised:
        run_test(connection, tests["few_notes"])
    assert str(raised.value.where) == "project/tests/few_notes.sql:1"


def test_quotes_in_values_and_names_are_harmless(
    tests_of: Callable[..., dict[str, DataTest]], connection: duckdb.DuckDBPyConnection
) -> None:
    models = """
        models:
          - name: notes
            columns:
              topic: {tests: [{accepted_values: {values: ["it's", maths, physics, art]}}]}
        """
    tests = tests_of(
        **{
            "models/notes.yml": models,
            "models/notes.sql": "select 1 as id",
            "project/tests/few_notes.sql": "select 1 where false",
        }
    )
    assert run_test(connection, tests["accepted_values_notes_topic"]).status == "pass"
