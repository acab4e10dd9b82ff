"""What the store costs in CPU seconds: `python tests/benchmarks/store.py [calls] [rows]`. Not a test."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from bqbuild.core.hashing import digest
from bqbuild.core.records import CallKey, CallRecord, ChatReply, ChatRequest, Message, NodeName, ReadInput, Trace
from bqbuild.store import open_store
from bqbuild.store.base import Store
from bqbuild.store.digests import table_digest


@contextmanager
def measured(what: str, count: int) -> Iterator[None]:
    start = time.process_time()
    yield
    seconds = time.process_time() - start
    print(f"{what:44} {seconds:7.2f} s {seconds / count * 1e6:8.1f} µs each {count / seconds:12,.0f} a second")


def make_calls(count: int) -> list[CallRecord]:
    rng = random.Random(1)
    words = [f"word{number}" for number in range(5000)]

    def text(length: int) -> str:
        return " ".join(rng.choices(words, k=length))

    def call(number: int) -> CallRecord:
        messages = (Message("system", "You write exam questions. " * 10), Message("user", text(150)))
        request = ChatRequest(messages, {"temperature": 0.7})
        return CallRecord(
            CallKey(digest(number)), "writer", {"model": "m"}, request, ChatReply(text(120)), 0.1, 1.0, float(number)
        )

    return [call(number) for number in range(count)]


def measure_calls(place: str, count: int) -> None:
    calls = make_calls(count)
    keys = [call.key for call in calls]
    shuffled = random.Random(2).sample(keys, min(count, 10_240))

    async def append(store: Store) -> None:
        for start in range(0, count, 2000):
            await asyncio.gather(*(store.calls.append(call) for call in calls[start : start + 2000]))

    def find(store: Store, wanted: list[CallKey]) -> None:
        for start in range(0, len(wanted), 512):
            store.calls.find(wanted[start : start + 512])

    store = open_store(place)
    with measured("calls: append", count):
        asyncio.run(append(store))
    with measured("calls: find in a journal", count):
        find(store, keys)
    with measured("calls: close (journal to segment)", count):
        store.close()
    store = open_store(place)
    with measured("calls: open, and find nothing", count):
        store.calls.find([CallKey("0" * 32)])
    with measured("calls: find in a segment, in order", count):
        find(store, keys)
    with measured("calls: find in a segment, at random", len(shuffled)):
        find(store, shuffled)
    store.close()


def measure_tables(place: str, count: int) -> None:
    rows = pa.table(
        {
            "question": [f"What is the value of number {number} in this text, asked again?" for number in range(count)],
            "n": range(count),
            "_bq_id": [digest(number) for number in range(count)],
        }
    )
    order = pa.array([f"{number * 7919 % count:09d}".encode() for number in range(count)], pa.binary())
    unordered = rows.add_column(0, "_bq_order", order)
    with measured("digest of three columns in memory", count):
        table_digest(rows)
    store = open_store(place)
    for what, data, ordered in (("table: write", rows, False), ("table: write in order", unordered, True)):
        with measured(what, count):
            writer = store.tables.writer(rows.schema, ordered=ordered)
            for batch in data.to_batches(max_chunksize=8192):
                writer.write(batch)
            table = writer.commit()
    for columns in (["question", "n", "_bq_id"], ["question"], ["n"]):
        with measured(f"content digest: {', '.join(columns)}", count):
            store.tables.content_digest(table, columns)
    traces = [
        Trace(
            digest(n), NodeName("n"), "sql", digest(2), {}, {"p": ReadInput(("a",), True, digest(4))}, {"": digest(5)}
        )
        for n in range(1000)
    ]
    with measured("traces: put", 1000):
        for trace in traces:
            store.traces.put(trace)
    with measured("traces: find", 1000):
        store.traces.find([trace.key for trace in traces])
    store.close()


if __name__ == "__main__":
    sizes = [int(argument) for argument in sys.argv[1:]] + [50_000, 500_000][len(sys.argv) - 1 :]
    with tempfile.TemporaryDirectory() as folder:
        measure_calls(folder, sizes[0])
        measure_tables(folder, sizes[1])
