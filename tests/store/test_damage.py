"""Whatever happens to the bytes of the call log: a call comes back as it was recorded, or its damage is named."""

from __future__ import annotations

import asyncio
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bqbuild.core.errors import StoreError
from bqbuild.core.records import CallKey, CallRecord
from bqbuild.store import open_store
from tests.store.conftest import make_call

CALLS = {record.key: record for record in (make_call(number, text="word " * (number % 50)) for number in range(300))}


@cache
def recorded(kind: str) -> tuple[tuple[str, bytes], ...]:
    """The files of a log with CALLS in it, as a living process leaves them or as a finished one does."""
    with tempfile.TemporaryDirectory() as place:
        store = open_store(place)

        async def append() -> None:
            await asyncio.gather(*(store.calls.append(record) for record in CALLS.values()))

        asyncio.run(append())
        if kind == "segment":
            store.close()
        root = Path(place) / "v1" / "calls"
        files = ((path.relative_to(root).as_posix(), path.read_bytes()) for path in root.rglob("*") if path.is_file())
        found = tuple(sorted(files))
        store.close()
        return found


def find_all(files: dict[str, bytes]) -> tuple[dict[CallKey, CallRecord], str]:
    """What each single look-up gives, and the first error."""
    with tempfile.TemporaryDirectory() as place:
        for name, data in files.items():
            path = Path(place) / "v1" / "calls" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        store = open_store(place)
        found: dict[CallKey, CallRecord] = {}
        problem = ""
        for key in CALLS:
            try:
                found |= store.calls.find([key])
            except StoreError as error:
                problem = problem or str(error)
        store.close()
        return found, problem


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["journal", "segment"]), st.data())
def test_a_flipped_byte_is_harmless_or_named(kind: str, data: st.DataObject) -> None:
    files = dict(recorded(kind))
    name = data.draw(st.sampled_from([name for name in files if files[name]]))
    at = data.draw(st.integers(0, len(files[name]) - 1))
    changed = files[name][at] ^ data.draw(st.integers(1, 255))
    files[name] = files[name][:at] + bytes([changed]) + files[name][at + 1 :]
    found, problem = find_all(files)
    assert all(CALLS[key] == record for key, record in found.items())
    torn = 1 if kind == "journal" and at == len(files[name]) - 1 else 0
    assert len(found) >= len(CALLS) - torn or "is damaged" in problem


@pytest.mark.parametrize("frames", [0, 1])
def test_a_segment_cut_between_frames_without_its_index_is_named(frames: int) -> None:
    files = dict(recorded("segment"))
    name = next(name for name in files if name.endswith(".zst"))
    first = 32 + int.from_bytes(files[name][8:16], "little")
    files[name] = files[name][: frames * first]
    del files[name.replace(".jsonl.zst", ".parquet")]
    found, problem = find_all(files)
    assert len(found) < len(CALLS)
    assert "is damaged" in problem


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_a_segment_that_is_cut_short_is_named(data: st.DataObject) -> None:
    files = dict(recorded("segment"))
    name = next(name for name in files if name.endswith(".zst"))
    files[name] = files[name][: data.draw(st.integers(0, len(files[name]) - 33))]
    if data.draw(st.booleans()):
        del files[name.replace(".jsonl.zst", ".parquet")]
    found, problem = find_all(files)
    assert all(CALLS[key] == record for key, record in found.items())
    assert "is damaged" in problem


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_a_journal_that_is_cut_short_loses_at_most_what_is_cut(data: st.DataObject) -> None:
    files = dict(recorded("journal"))
    name = next(name for name in files if name.endswith(".jsonl"))
    cut = data.draw(st.integers(0, len(files[name])))
    files[name] = files[name][:cut]
    found, problem = find_all(files)
    assert len(found) == files[name].count(b"\n")
    assert all(CALLS[key] == record for key, record in found.items())
    assert problem == ""


@pytest.mark.parametrize("kind", ["journal", "segment"])
def test_an_undamaged_log_gives_everything(kind: str) -> None:
    assert find_all(dict(recorded(kind))) == (CALLS, "")
