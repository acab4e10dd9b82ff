"""Environments: pointers that move together and lose nothing that others moved."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bqbuild.core.errors import StoreError
from bqbuild.core.hashing import digest
from bqbuild.core.records import NodeName
from bqbuild.store.base import DamagedError, Pointer, Store


def pointer(name: str) -> Pointer:
    return Pointer(digest(["trace", name]), {"": digest(["table", name]), "errors": digest(["errors", name])})


A, B = NodeName("a"), NodeName("b")


def test_pointers_move_and_are_removed(store: Store) -> None:
    assert store.environments.read("capitals/dev") == {}
    store.environments.move("capitals/dev", {A: pointer("1"), B: pointer("2")})
    store.environments.move("capitals/dev", {A: pointer("3")})
    assert store.environments.read("capitals/dev") == {A: pointer("3"), B: pointer("2")}
    store.environments.move("capitals/dev", {B: None, NodeName("c"): None})
    assert store.environments.read("capitals/dev") == {A: pointer("3")}


def test_environments_are_apart_and_listed(store: Store) -> None:
    for name in ("capitals/dev", "capitals/dev__sample", "capitals/feature/x", "other one/dev", "capitals/../../x"):
        store.environments.move(name, {A: pointer(name)})
    assert store.environments.names() == [
        "capitals/../../x",
        "capitals/dev",
        "capitals/dev__sample",
        "capitals/feature/x",
        "other one/dev",
    ]
    assert all(store.environments.read(name) == {A: pointer(name)} for name in store.environments.names())


@pytest.mark.parametrize("name", ["dev", "/dev", "capitals/", ""])
def test_a_name_without_project_is_refused(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="does not name an environment"):
        store.environments.move(name, {})


def test_a_damaged_environment_is_named(store: Store) -> None:
    store.environments.move("capitals/dev", {A: pointer("1")})
    path = store.scratch.parent / "environments" / "capitals" / "dev.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedError, match=r"dev\.json is damaged"):
        store.environments.read("capitals/dev")


MOVE = """
import sys
from bqbuild.core.hashing import digest
from bqbuild.store import open_store
from bqbuild.store.base import Pointer
store = open_store(sys.argv[1])
for number in range(25):
    store.environments.move("p/dev", {f"{sys.argv[2]}_{number}": Pointer(digest(number), {})})
store.close()
"""


def test_processes_that_move_pointers_at_once_lose_none(store: Store, python: Callable[..., object]) -> None:
    processes = [python(MOVE, turn) for turn in range(3)]
    for process in processes:
        assert process.communicate(timeout=60) == ("", "")
    assert len(store.environments.read("p/dev")) == 75
