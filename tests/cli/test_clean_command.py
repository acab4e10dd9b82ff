from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Bqbuild
from tests.llm_server import LlmServer
from tests.space import Space


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_clean_removes_the_artifacts_and_nothing_of_the_store(
    bqbuild: Bqbuild, built: Space, llm_server: LlmServer
) -> None:
    folder = built.root / ".bqbuild" / "dev"
    assert {"warehouse.duckdb", "manifest.json", "run_results.json", "logs"} <= {each.name for each in folder.iterdir()}
    store = files(built.root / ".bqbuild" / "v1")
    sources = files(built.root / "project")
    done = bqbuild("clean")
    assert done.code == 0
    assert done.out == ""
    assert "warehouse.duckdb" in done.err
    assert "Every table and call is still in the store" in done.err
    assert not folder.exists()
    assert files(built.root / ".bqbuild" / "v1") == store
    assert files(built.root / "project") == sources
    llm_server.clear()
    assert "Nothing to do" in bqbuild("run").err
    assert not llm_server.requests
    assert (folder / "warehouse.duckdb").is_file()


def test_clean_twice_has_nothing_left_to_remove(bqbuild: Bqbuild, built: Space) -> None:
    assert bqbuild("clean", "--quiet").err == ""
    assert "Nothing to remove" in bqbuild("clean").err


def test_json_says_what_was_removed(bqbuild: Bqbuild, built: Space) -> None:
    folder = built.root / ".bqbuild" / "dev"
    there = files(folder)
    document = bqbuild("clean", "--json").json()
    assert document["folder"] == str(folder)
    assert document["files"] == len(there)
    assert document["bytes"] == sum(map(len, there.values()))
    assert "warehouse.duckdb" in document["removed"]
    assert document["store"] == str(built.root / ".bqbuild")


@pytest.mark.parametrize("target", ["v1", "dev"])
def test_a_folder_that_is_a_store_as_well_is_left_alone(bqbuild: Bqbuild, capitals: Space, target: str) -> None:
    store = ".bqbuild" if target == "v1" else ".bqbuild/dev"
    capitals.edit("project/profiles.yml", "default: dev", f"default: {target}")
    capitals.edit("project/profiles.yml", "\n  dev:", f"\n  {target}:")
    capitals.edit("project/profiles.yml", "store: .bqbuild ", f"store: {store} ")
    assert bqbuild("run", "-q").code == 0
    before = files(capitals.root / ".bqbuild")
    done = bqbuild("clean")
    assert done.code == 1
    assert "is a store as well" in done.err
    assert files(capitals.root / ".bqbuild") == before
