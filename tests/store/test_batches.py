"""What a store knows of batches at a provider: whole, checked, and gone when it is no longer needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bqbuild.core.records import BatchRecord, CallKey, ChatRequest, Constraint, Message
from bqbuild.store.base import DamagedError, Store

RECORD = BatchRecord("t0", "writer", {"model": "m"}, "http://host/v1", 2, created=1.0)
CALLS = [
    (CallKey("a" * 32), ChatRequest((Message("user", "héllo\x00"),), {"seed": 3, "top_p": 0.5}, sample=1)),
    (CallKey("b" * 32), ChatRequest((Message("system", ""), Message("user", "x")), {}, 0, Constraint(("p", "q")))),
]


def test_a_batch_is_found_by_another_process_as_it_was_planned(store: Store, reopen: Callable[[], Store]) -> None:
    store.batches.plan(RECORD, CALLS)
    other = reopen().batches
    assert other.open() == [RECORD]
    assert list(other.calls("t0")) == CALLS
    assert other.keys("t0") == [key for key, _ in CALLS]


def test_the_last_step_written_counts(store: Store) -> None:
    store.batches.plan(RECORD, CALLS)
    later = replace(RECORD, state="created", input_file="f", batch="b")
    store.batches.write(later)
    assert store.batches.find("t0") == later


def test_a_batch_that_is_done_with_leaves_nothing(store: Store, tmp_path: Path) -> None:
    store.batches.plan(RECORD, CALLS)
    store.batches.remove("t0")
    assert store.batches.open() == []
    assert store.batches.find("t0") is None
    assert not list(tmp_path.rglob("batches/*"))


def test_calls_that_a_dead_process_left_without_a_record_are_removed(store: Store, tmp_path: Path) -> None:
    store.batches.plan(RECORD, CALLS)
    (record,) = tmp_path.rglob("batches/t0.json")
    record.unlink()
    store.batches.plan(replace(RECORD, token="t1"), CALLS)
    assert sorted(path.name for path in tmp_path.rglob("batches/*")) == ["t1.calls", "t1.json"]


def test_a_damaged_record_is_named(store: Store, tmp_path: Path) -> None:
    store.batches.plan(RECORD, CALLS)
    (path,) = tmp_path.rglob("batches/t0.json")
    path.write_bytes(path.read_bytes().replace(b"planned", b"created"))
    with pytest.raises(DamagedError, match=r"t0\.json is damaged: the checksum does not match"):
        store.batches.open()
