"""Finding and loading projects."""

from __future__ import annotations

from pathlib import Path

import pytest

from bqbuild.config.layout import find_project
from bqbuild.config.project import load_project
from bqbuild.core.errors import ProjectErrors, UsageError
from bqbuild.core.records import Column
from tests.config.small import ENVIRON, load, mistakes, write


def test_a_project_is_found_from_below(tmp_path: Path) -> None:
    root = write(tmp_path)
    assert find_project(root / "models" / "staging") == root
    assert find_project(root) == root


def test_no_project_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no project/bqbuild\.yml") as caught:
        find_project(tmp_path)
    assert "bqbuild init" in (caught.value.hint or "")


def test_the_lock_is_read(tmp_path: Path) -> None:
    project = load(tmp_path, {"project/sources.lock": "sources:\n  notes:\n    id: bigint\n"})
    assert project.lock.columns("notes") == (Column("id", "bigint"),)
    assert "project/sources.lock" in project.files
    assert mistakes(tmp_path, {"project/sources.lock": "x"})[0].startswith("project/sources.lock: is not a lock")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "project/bqbuild.yml: the file is empty"),
        ("nam: x\n", "project/bqbuild.yml:1:1: missing key 'name'"),
        ("name: x\nvarss: {}\n", "project/bqbuild.yml:2:1: unknown key 'varss' (did you mean 'vars'?)"),
        ("name: 'a b'\n", "project/bqbuild.yml:1:7: `name` must be"),
        ("name: x\nselectors: {a: {tgs: c}}\n", "2:13: selector `a`: 'tgs:c': there is no selection method 'tgs'"),
        ("name: x\nselectors: {a: 'tag:x @y+'}\n", "2:13: selector `a`: '@y+': `@` and a trailing `+`"),
        ("name: x\nselectors:\n- {name: a, definition: 7}\n", "3:3: selector `a`: a selector is text or a mapping"),
        ("name: x\nselectors: [{name: a}]\n", "an entry of a list of selectors has `name` and `definition`"),
        ("name: x\nselectors: 7\n", "`selectors` must be a mapping"),
        ("name: x\nvars: {a: \"{{ env_var('NOPE') }}\"}\n", "the environment variable 'NOPE' is not set"),
    ],
)
def test_broken_settings_are_told_with_their_place(tmp_path: Path, text: str, expected: str) -> None:
    found = mistakes(tmp_path, {"project/bqbuild.yml": text})
    assert any(expected in line for line in found), found


def test_a_missing_file_of_settings_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProjectErrors) as caught:
        load_project(tmp_path, environ=ENVIRON)
    assert [str(error.where) for error in caught.value.errors] == ["project/bqbuild.yml", "project/profiles.yml"]


def test_the_environment_of_the_process_is_not_read_beside_what_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_URL", "http://from.process")
    assert mistakes(tmp_path, {}, environ={}) != []


def test_macros_with_the_same_name_are_a_mistake(tmp_path: Path) -> None:
    macro = "{% macro m() %}{% endmacro %}"
    files: dict[str, str | bytes | None] = {"project/macros/a.sql": macro, "project/macros/b.sql": "\n" + macro}
    assert mistakes(tmp_path, files) == [
        "project/macros/b.sql:2: duplicate macro 'm' | project/macros/a.sql:1 has one of that name"
    ]
    files = {"project/macros/a.sql": "{% macro ref() %}{% endmacro %}"}
    assert mistakes(tmp_path, files) == [
        "project/macros/a.sql:1: the macro name 'ref' is taken | it is a built-in function"
    ]


def test_a_project_may_be_loaded_twice_with_equal_results(tmp_path: Path) -> None:
    first, second = load(tmp_path), load(tmp_path)
    assert first.nodes == second.nodes
    assert first.files == second.files
    assert first.prompts["ask"].identity == second.prompts["ask"].identity
