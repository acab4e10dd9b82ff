"""Traces: recorded once, found in bulk, never half there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bqbuild.core.hashing import Digest, digest
from bqbuild.core.records import NodeName, ReadInput, Trace
from bqbuild.store.base import Store


def make_trace(number: int = 0) -> Trace:
    return Trace(
        key=digest(["key", number]),
        node=NodeName("questions"),
        kind="synthesize",
        recipe=digest("recipe"),
        components={"prompt:ask": digest("prompt"), "llm.model": digest("model")},
        inputs={"clean_notes": ReadInput(("text", "topic"), True, digest("input"))},
        outputs={"": digest("table"), "errors": digest("errors")},
        stats={"rows": 3, "cost": 0.5, "tokens": {"input": 1, "output": 2}},
    )


def test_a_trace_comes_back_as_it_was_put(store: Store) -> None:
    trace = make_trace()
    store.traces.put(trace)
    assert store.traces.find([trace.key, Digest("0" * 32)]) == {trace.key: trace}


def test_the_last_trace_wins_but_a_partial_one_never_replaces_a_complete_one(store: Store) -> None:
    partial = replace(make_trace(), complete=False, stats={"rows": 1})
    store.traces.put(partial)
    store.traces.put(replace(partial, stats={"rows": 2}))
    assert store.traces.find([partial.key])[partial.key].stats == {"rows": 2}
    complete = make_trace()
    store.traces.put(complete)
    store.traces.put(partial)
    assert store.traces.find([complete.key]) == {complete.key: complete}
    store.traces.put(replace(complete, stats={"rows": 4}))
    assert store.traces.find([complete.key])[complete.key].stats == {"rows": 4}


@pytest.mark.parametrize("damage", [b"", b"null", b"{}", b"\xff\xfe", b"[" * 2000])
def test_a_damaged_trace_is_as_good_as_none_and_is_replaced(store: Store, damage: bytes) -> None:
    trace = make_trace()
    store.traces.put(trace)
    path = _file(store, trace)
    path.write_bytes(damage)
    assert store.traces.find([trace.key]) == {}
    store.traces.put(replace(trace, complete=False))
    store.traces.put(trace)
    assert store.traces.find([trace.key]) == {trace.key: trace}


def test_one_flipped_bit_is_noticed(store: Store) -> None:
    trace = make_trace()
    store.traces.put(trace)
    path = _file(store, trace)
    sound = path.read_bytes()
    for at in range(0, len(sound) - 1, 7):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        assert store.traces.find([trace.key]) in ({}, {trace.key: trace})
    path.write_bytes(sound.replace(b'"complete":true', b'"complete":false'))
    assert store.traces.find([trace.key]) == {}


def test_a_trace_under_anothers_name_is_not_believed(store: Store) -> None:
    trace, other = make_trace(0), make_trace(1)
    store.traces.put(trace)
    path = _file(store, trace)
    target = path.parent.parent / other.key[:2] / f"{other.key}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(path.read_bytes())
    assert store.traces.find([other.key]) == {}


def test_a_thousand_traces_are_found_at_once(store: Store) -> None:
    traces = [make_trace(number) for number in range(1000)]
    for trace in traces[:50]:
        store.traces.put(trace)
    assert len(store.traces.find([trace.key for trace in traces])) == 50


def _file(store: Store, trace: Trace) -> Path:
    return store.scratch.parent / "traces" / trace.key[:2] / f"{trace.key}.json"
