from __future__ import annotations

import pytest

from tests.cli.conftest import Bqbuild
from tests.llm_server import LlmServer
from tests.space import Space


def test_all_is_well(bqbuild: Bqbuild, capitals: Space, llm_server: LlmServer) -> None:
    done = bqbuild("debug")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()] == ["ok"] * 4
    (request,) = llm_server.requests
    assert request["max_tokens"] == 1


def test_connections_to_the_same_place_are_asked_once(bqbuild: Bqbuild, capitals: Space, llm_server: LlmServer) -> None:
    profiles = capitals.read("project/profiles.yml")
    writer = profiles[profiles.index("      writer:") :]
    capitals.write("project/profiles.yml", profiles.rstrip() + "\n" + writer.replace("writer:", "reader:"))
    done = bqbuild("debug", "--json")
    assert len(llm_server.requests) == 1
    assert [check["name"] for check in done.json()["checks"]][-1] == "llm writer, reader"


def test_a_server_that_is_down_is_named_and_exit_1(bqbuild: Bqbuild, capitals: Space, llm_server: LlmServer) -> None:
    llm_server.stop()
    done = bqbuild("debug")
    assert done.code == 1
    assert f"FAIL llm writer: no connection with {llm_server.url}" in done.out


def test_a_refused_key_is_told_without_the_key(
    bqbuild: Bqbuild, capitals: Space, llm_server: LlmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_API_KEY", "sk-wrong-key")
    llm_server.api_key = "right"
    done = bqbuild("debug")
    assert done.code == 1
    assert "FAIL llm writer" in done.out
    assert "sk-wrong-key" not in done.out + done.err


def test_a_store_that_takes_no_writes_is_named(bqbuild: Bqbuild, capitals: Space) -> None:
    capitals.write(".bqbuild/v1", "a file where a folder belongs")
    done = bqbuild("debug")
    assert done.code == 1
    assert "FAIL store" in done.out


def test_a_project_with_mistakes_is_exit_2(bqbuild: Bqbuild, capitals: Space) -> None:
    capitals.edit("models/models.yml", "kind: refine", "kind: refin")
    assert bqbuild("debug").code == 2


def test_a_missing_embedded_model_is_told_with_the_command_that_gets_it(
    bqbuild: Bqbuild, capitals: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BQBUILD_CACHE", str(capitals.root / "empty"))
    capitals.edit("project/profiles.yml", "provider: openai", "provider: embedded")
    capitals.edit("project/profiles.yml", "model: mock", "model: smollm2-135m-instruct")
    done = bqbuild("debug")
    assert done.code == 1
    assert "bqbuild debug --fetch-model" in done.out
