"""The history of environments: what was recorded is found again, newest first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bqbuild.core.errors import StoreError
from bqbuild.core.hashing import digest
from bqbuild.core.records import NodeName
from bqbuild.store.base import DamagedError, Pointer, Store

A, B = NodeName("a"), NodeName("b")


def pointer(name: str) -> Pointer:
    return Pointer(digest(["trace", name]), {"": digest(["table", name]), "errors": digest(["errors", name])})


def test_runs_are_listed_newest_first_by_every_process(store: Store, reopen: Callable[[], Store]) -> None:
    recorded = [store.runs.record("capitals/dev", "run", {A: pointer(str(number))}) for number in range(5)]
    recorded.append(store.runs.record("capitals/dev", "build", {A: pointer("4"), B: pointer("5")}))
    again = reopen()
    assert list(again.runs.list("capitals/dev")) == recorded[::-1]
    assert list(again.runs.list("capitals/dev", 2)) == recorded[:-3:-1]
    assert [run.command for run in again.runs.list("capitals/dev", 2)] == ["build", "run"]
    assert len({run.id for run in recorded}) == 6


def test_histories_are_apart(store: Store) -> None:
    names = ("capitals/dev", "capitals/feature/x", "other one/dev", "capitals/../../x")
    for name in names:
        store.runs.record(name, "run", {A: pointer(name)})
    assert list(store.runs.environments()) == sorted(names)
    assert all([run.pointers for run in store.runs.list(name)] == [{A: pointer(name)}] for name in names)
    assert not store.runs.list("capitals/prod")


def test_a_name_without_project_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="does not name an environment"):
        store.runs.record("dev", "run", {})


def test_a_damaged_record_is_named_and_newer_ones_are_read(store: Store) -> None:
    store.runs.record("capitals/dev", "run", {A: pointer("1")})
    newest = store.runs.record("capitals/dev", "run", {A: pointer("2")})
    oldest, _ = sorted((store.scratch.parent / "runs" / "capitals" / "dev").iterdir())
    oldest.write_bytes(oldest.read_bytes().replace(b'"run"', b'"ran"', 1))
    assert list(store.runs.list("capitals/dev", 1)) == [newest]
    with pytest.raises(DamagedError, match=oldest.name):
        store.runs.list("capitals/dev")
