"""Targets, environment variables and secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from bqbuild.config.secrets import Secrets
from bqbuild.config.specs import TargetSpec
from tests.config.small import ENVIRON, FILES, load, mistakes

PROFILES = "project/profiles.yml"


def test_the_default_target_is_used(tmp_path: Path) -> None:
    project = load(tmp_path)
    assert project.target_name == "dev"
    assert isinstance(project.target, TargetSpec)
    assert project.target.llms["writer"].base_url == ENVIRON["LLM_URL"]
    assert project.environment == "capitals/dev"
    assert project.artifacts == tmp_path / ".bqbuild" / "dev"
    assert project.store_path == str(tmp_path / ".bqbuild")


def test_the_target_may_be_given_or_named_by_the_environment(tmp_path: Path) -> None:
    environ = {**ENVIRON, "PAPER_URL": "http://paper"}
    assert load(tmp_path, target="paper", environ=environ).target_name == "paper"
    assert load(tmp_path, environ={**environ, "BQBUILD_TARGET": "paper"}).target_name == "paper"
    assert load(tmp_path, target="dev", environ={**environ, "BQBUILD_TARGET": "paper"}).target_name == "dev"
    assert load(tmp_path, environ={**environ, "BQBUILD_TARGET": ""}).target_name == "dev"


def test_a_missing_variable_of_the_chosen_target_names_file_and_line(tmp_path: Path) -> None:
    assert mistakes(tmp_path, {}, environ={}) == [
        "project/profiles.yml:7:19: the environment variable 'LLM_URL' is not set"
        " | set it, or give a default: {{ env_var('LLM_URL', '…') }}"
    ]


def test_a_missing_variable_of_another_target_harms_nobody(tmp_path: Path) -> None:
    assert "PAPER_URL" not in ENVIRON
    assert load(tmp_path).target_name == "dev"
    assert "'PAPER_URL' is not set" in mistakes(tmp_path, {}, target="paper")[0]


def test_another_target_is_checked_for_unknown_keys(tmp_path: Path) -> None:
    text = FILES[PROFILES].replace("model: big", "modl: big").replace("paper:", "paper:\n            stor: x")
    assert mistakes(tmp_path, {PROFILES: text}) == [
        "project/profiles.yml:11:5: unknown key 'stor' (did you mean 'store'?)",
        "project/profiles.yml:13:7: missing key 'model' in `llms.writer`",
        "project/profiles.yml:13:34: unknown key 'modl' (did you mean 'model'?)",
    ]


def test_values_keep_their_types(tmp_path: Path) -> None:
    text = FILES[PROFILES].replace(
        "model: mock", "model: mock\n                max_concurrency: \"{{ var('many', 8) }}\""
    )
    assert load(tmp_path / "1", {PROFILES: text}).target.llms["writer"].max_concurrency == 8
    text = text.replace("var('many', 8)", "env_var('MANY')")
    project = load(tmp_path / "2", {PROFILES: text}, environ={**ENVIRON, "MANY": "9"})
    assert project.target.llms["writer"].max_concurrency == 9
    assert mistakes(tmp_path / "3", {PROFILES: text}, environ={**ENVIRON, "MANY": "x"}) == [
        "project/profiles.yml:9:26: `llms.writer.max_concurrency` must be a whole number, not 'x'"
    ]


def test_secrets_are_redacted(tmp_path: Path) -> None:
    project = load(tmp_path, environ={**ENVIRON, "LLM_API_KEY": 'sk-"quoted"/1'})
    assert project.target.llms["writer"].api_key == 'sk-"quoted"/1'
    for text in ('key sk-"quoted"/1.', 'json "sk-\\"quoted\\"/1"', "url ?k=sk-%22quoted%22%2F1"):
        assert "quoted" not in project.secrets.redact(text)
        assert "***" in project.secrets.redact(text)
    assert "quoted" not in repr(project)
    assert "quoted" not in repr(project.target)


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("headers: {Authorization: \"Bearer {{ env_var('MY_TOKEN') }}\"}", "token-value"),
        ("headers: {X-Api-Key: literal-value}", "literal-value"),
        ("base_url: \"{{ secret_env_var('HOST') }}\"", "host-value"),
        ("headers: {X-Team: \"{{ env_var('db_password') }}\"}", "password-value"),
    ],
)
def test_what_is_a_secret(tmp_path: Path, line: str, secret: str) -> None:
    text = FILES[PROFILES].replace("model: mock", f"model: mock\n                {line}")
    text = text.replace("                base_url: \"{{ env_var('LLM_URL') }}\"\n", "")
    environ = {**ENVIRON, "MY_TOKEN": "token-value", "HOST": "host-value", "db_password": "password-value"}
    assert load(tmp_path, {PROFILES: text}, environ=environ).secrets.redact(f"a {secret} b") == "a *** b"


def test_a_short_value_is_not_masked() -> None:
    secrets = Secrets()
    secrets.add("abc")
    secrets.add("")
    assert secrets.redact("abc") == "abc"


@pytest.mark.parametrize("function", ["env_var('X_KEY')", "secret_env_var('X')"])
def test_a_secret_has_no_place_outside_of_profiles(tmp_path: Path, function: str) -> None:
    environ = {**ENVIRON, "X_KEY": "value", "X": "value"}
    text = (
        f"models:\n  - {{name: x, kind: sql, sql: 'select 1', description: d, meta: {{a: \"{{{{ {function} }}}}\"}}}}\n"
    )
    [found] = mistakes(tmp_path / "1", {"models/x.yml": text}, environ=environ)
    assert "has no place here | secrets go into project/profiles.yml" in found
    assert "value" not in found
    [found] = mistakes(tmp_path / "2", {"models/x.sql": f"select '{{{{ {function} }}}}'"}, environ=environ)
    assert found.startswith("models/x.sql:1: the secret")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "project/profiles.yml: must have `default` and `targets`"),
        ("default: dev\n", "project/profiles.yml:1: missing key 'targets'"),
        ("default: dev\ntargets: []\n", "project/profiles.yml:1: `targets` must be a mapping"),
        ("targets: {dev: {}}\n", "project/profiles.yml:1: missing key 'default'"),
        (
            "default: deev\ntargets: {dev: {}}\n",
            "project/profiles.yml:1:10: there is no target 'deev' (did you mean 'dev'?)",
        ),
        (
            "defalt: dev\ntargets: {dev: {}}\n",
            "project/profiles.yml:1:1: unknown key 'defalt' (did you mean 'default'?)",
        ),
        ("default: dev\ntargets: {dev: 3}\n", "project/profiles.yml:2:16: targets.dev must be a mapping, not '3'"),
        ("default: dev\ntargets: {dev: {store: 's3://b/p'}}\n", "a shared store needs `environment:`"),
    ],
)
def test_broken_profiles_are_told_with_their_place(tmp_path: Path, text: str, expected: str) -> None:
    assert any(expected in line for line in mistakes(tmp_path, {PROFILES: text}))


def test_an_unknown_target_lists_those_that_there_are(tmp_path: Path) -> None:
    [found] = mistakes(tmp_path, {}, target="prod")
    assert found == "project/profiles.yml:2:1: there is no target 'prod' | targets: dev, paper"


def test_a_missing_file_of_profiles_is_told(tmp_path: Path) -> None:
    assert mistakes(tmp_path, {PROFILES: None}) == ["project/profiles.yml: cannot be read: No such file or directory"]


def test_variables_of_the_command_line_win_over_the_target_and_that_over_the_project(tmp_path: Path) -> None:
    text = FILES[PROFILES].replace("dev:\n", "dev:\n            vars: {min_words: 5, b: \"{{ env_var('B') }}\"}\n", 1)
    environ = {**ENVIRON, "B": "x"}
    assert load(tmp_path / "1").variables == {"min_words": 3}
    assert load(tmp_path / "2", {PROFILES: text}, environ=environ).variables == {"min_words": 5, "b": "x"}
    given = load(tmp_path / "3", {PROFILES: text}, environ=environ, variables={"min_words": 7})
    assert given.variables["min_words"] == 7
    assert ">= 7" in given.nodes["clean_notes"].body  # type: ignore[index]  # names are NewTypes of text


def test_an_environment_may_be_named(tmp_path: Path) -> None:
    text = FILES[PROFILES].replace("dev:\n", "dev:\n            environment: ci\n            store: /data/store\n", 1)
    project = load(tmp_path, {PROFILES: text})
    assert project.environment == "capitals/ci"
    assert project.store_path == "/data/store"
