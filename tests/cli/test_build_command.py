from __future__ import annotations

import pytest

from tests.cli.conftest import Bqbuild
from tests.llm_server import LlmServer
from tests.space import Space

TESTED = """
  - name: clean_notes
    columns:
      - name: topic
        tests:
          - accepted_values: {values: [%s]}
"""


@pytest.fixture
def failing(capitals: Space) -> Space:
    """`capitals` with a test of `clean_notes` that three of its rows fail."""
    capitals.write("models/models.yml", capitals.read("models/models.yml") + TESTED % "France")
    return capitals


def test_build_runs_tests_as_well(bqbuild: Bqbuild, capitals: Space) -> None:
    capitals.write(
        "models/models.yml", capitals.read("models/models.yml") + TESTED % "France, Japan, Brazil, Australia"
    )
    done = bqbuild("build")
    assert done.code == 0
    assert "pass     accepted_values_clean_notes_topic" in done.err
    assert "1 test: 1 pass" in done.err
    again = bqbuild("build")
    assert again.code == 0
    assert "Nothing to do: 5 models are up to date" in again.err


def test_nothing_is_built_or_paid_below_a_failed_test(bqbuild: Bqbuild, failing: Space, llm_server: LlmServer) -> None:
    done = bqbuild("build")
    assert done.code == 1
    assert "fail     accepted_values_clean_notes_topic · 3 rows" in done.err
    assert '{"topic": "Brazil"' in done.err
    assert "skipped" in done.err
    assert not llm_server.requests


def test_test_says_which_rows_are_wrong(bqbuild: Bqbuild, failing: Space) -> None:
    assert bqbuild("run", "-s", "clean_notes").code == 0
    done = bqbuild("test", "-s", "clean_notes")
    assert done.code == 1
    assert "fail     accepted_values_clean_notes_topic · 3 rows" in done.err
    assert done.err.endswith("1 test: 1 fail\n")
    assert done.out == ""


def test_test_prints_results_as_json(bqbuild: Bqbuild, failing: Space) -> None:
    bqbuild("run", "-s", "clean_notes")
    document = bqbuild("test", "--json", "--quiet").json()
    (result,) = document["results"]
    assert document["succeeded"] is False
    assert result["status"] == "fail"
    assert result["failures"] == 3
    assert result["model"] == "clean_notes"
    assert result["file"] == "models/models.yml"
    assert len(result["sample"]) == 3


def test_a_test_of_a_model_that_is_not_built_fails_and_stops_no_other(bqbuild: Bqbuild, failing: Space) -> None:
    failing.write("project/tests/no_empty_question.sql", "select * from {{ ref('questions') }} where question = ''")
    bqbuild("run", "-s", "clean_notes")
    done = bqbuild("test")
    assert done.code == 1
    assert "no_empty_question" in done.err
    assert "bqbuild run --select questions" in done.err
    assert done.err.endswith("2 tests: 1 fail, 1 error\n")


def test_a_warning_does_not_fail(bqbuild: Bqbuild, failing: Space) -> None:
    failing.edit("models/models.yml", "{values: [France]}", "{values: [France], severity: warn}")
    bqbuild("run", "-s", "clean_notes")
    done = bqbuild("test", "-s", "clean_notes")
    assert done.code == 0
    assert "1 test: 1 warn" in done.err


def test_without_tests_there_is_nothing_to_do(bqbuild: Bqbuild, built: Space) -> None:
    done = bqbuild("test")
    assert done.code == 0
    assert "have no tests" in done.err
