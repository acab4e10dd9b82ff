"""The call log: durable before acknowledged, found in bulk, honest about damage."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from bqbuild.core.records import CallRecord, ChatReply, Constraint
from bqbuild.store.base import DamagedError, Store
from tests.store.conftest import make_call, make_key


def append(store: Store, records: Iterable[CallRecord]) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(*(store.calls.append(record) for record in records))

    asyncio.run(all_of_them())


def folder(store: Store) -> Path:
    return store.scratch.parent / "calls"


def journals(store: Store) -> list[Path]:
    return sorted(folder(store).glob("journal-*.jsonl"))


def segments(store: Store) -> list[Path]:
    return sorted((folder(store) / "segments").glob("*.jsonl.zst"))


def test_a_call_is_found_as_it_was_recorded(store: Store, reopen: Callable[[], Store]) -> None:
    record = make_call(1)
    assert store.calls.find([record.key]) == {}
    append(store, [record])
    assert store.calls.find([record.key, make_key(2)]) == {record.key: record}
    assert reopen().calls.find([record.key]) == {record.key: record}, "another process sees it at once"
    store.close()
    assert journals(store) == []
    assert len(segments(store)) == 1
    assert reopen().calls.find([record.key]) == {record.key: record}


def test_everything_about_a_call_is_kept(store: Store, reopen: Callable[[], Store]) -> None:
    plain = make_call(1)
    schema = {"type": "object", "properties": {"é\u2028": {"enum": [1, 1.0, None, True]}}}
    odd = replace(
        plain,
        key=make_key(2),
        identity={"model": "m", "weights": {"digest": "x"}},
        request=replace(
            plain.request, constraint=Constraint(("yes", "no"), schema), params={"a": 1, "b": 1.0, "c": None}
        ),
        reply=ChatReply('line\nline\r\n\x00\t"\\ \U0001f600 \u2028', "", "length"),
    )
    append(store, [plain, odd])
    assert store.calls.find([odd.key]) == {odd.key: odd}
    store.close()
    assert reopen().calls.find([odd.key, plain.key]) == {odd.key: odd, plain.key: plain}


def test_lone_surrogates_in_a_reply_do_not_lose_the_call(store: Store) -> None:
    hostile = replace(make_call(1), reply=ChatReply("a\ud800b"))
    append(store, [hostile])
    assert store.calls.find([hostile.key])[hostile.key].reply.text == "a?b"


def test_a_call_of_many_megabytes_is_a_call(store: Store, reopen: Callable[[], Store]) -> None:
    huge = make_call(1, text="x" * 30_000_000)
    append(store, [make_call(0), huge, make_call(2)])
    assert store.calls.find([huge.key]) == {huge.key: huge}
    store.close()
    assert reopen().calls.find([huge.key, make_key(2)]) == {huge.key: huge, make_key(2): make_call(2)}


def test_many_calls_are_found_wherever_they_are(store: Store, reopen: Callable[[], Store]) -> None:
    records = [make_call(number) for number in range(20_000)]
    expected = {record.key: record for record in records}
    append(store, records[:17_000])
    store.calls.close()
    append(store, records[17_000:])
    keys = [make_key(number) for number in range(-100, 20_100)]
    assert store.calls.find(keys) == expected
    store.close()
    again = reopen()
    assert again.calls.find(keys[::-1]) == expected
    assert again.calls.find(keys[:100]) == {}
    assert again.calls.find([]) == {}


def test_the_later_of_two_answers_counts(store: Store, reopen: Callable[[], Store]) -> None:
    other = reopen()
    append(store, [make_call(1, text="early", created=1.0)])
    append(other, [make_call(1, text="late", created=3.0), make_call(1, text="middle", created=2.0)])
    for each in (store, other):
        assert each.calls.find([make_key(1)])[make_key(1)].reply.text == "late"
    other.close()
    store.close()
    assert reopen().calls.find([make_key(1)])[make_key(1)].reply.text == "late"


def test_a_reader_follows_a_journal_into_its_segment(store: Store, reopen: Callable[[], Store]) -> None:
    reader = reopen()
    keys = [make_key(number) for number in range(3)]
    for number in range(3):
        append(store, [make_call(number)])
        assert len(reader.calls.find(keys)) == number + 1
    store.close()
    assert len(reader.calls.find(keys)) == 3


def test_a_log_can_be_used_again_after_close(store: Store) -> None:
    append(store, [make_call(1)])
    store.calls.close()
    append(store, [make_call(2)])
    assert len(store.calls.find([make_key(1), make_key(2)])) == 2


def test_a_cancelled_append_still_records_the_call(store: Store) -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(store.calls.append(make_call(1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    store.calls.close()
    assert store.calls.find([make_key(1)]) == {make_key(1): make_call(1)}


def test_many_small_segments_become_one(store: Store, reopen: Callable[[], Store]) -> None:
    for number in range(32):
        append(store, [make_call(number)])
        store.calls.close()
    assert len(segments(store)) == 1
    assert len(list((folder(store) / "segments").iterdir())) == 2
    assert len(reopen().calls.find([make_key(number) for number in range(32)])) == 32


APPEND = """
import asyncio, sys
from bqbuild.store import open_store
from tests.store.conftest import make_call
store = open_store(sys.argv[1])
first = int(sys.argv[2])
async def one(number):
    await store.calls.append(make_call(number))
    print(number, flush=True)
async def main():
    number = first
    while True:
        await asyncio.gather(*(one(number + step) for step in range(50)))
        number += 50
asyncio.run(main())
"""


def test_acknowledged_calls_survive_kill_9(
    store: Store, reopen: Callable[[], Store], python: Callable[..., object]
) -> None:
    for turn in range(3):
        process = python(APPEND, turn * 1_000_000)
        acknowledged = [int(process.stdout.readline()) for _ in range(180)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [
            int(line) for line in process.communicate()[0].splitlines(keepends=True) if line.endswith("\n")
        ]
        assert len(store.calls.find([make_key(number) for number in acknowledged])) == len(acknowledged)
        assert len(journals(store)) == 1
        store.calls.close()
        assert journals(store) == [], "the journal of the dead was adopted"
        again = reopen()
        found = again.calls.find([make_key(number) for number in acknowledged])
        assert found == {make_key(number): make_call(number) for number in acknowledged}


def test_the_journal_of_a_living_process_is_left_alone(store: Store, python: Callable[..., object]) -> None:
    process = python(APPEND, 0)
    assert process.stdout.readline() == "0\n"
    append(store, [make_call(-1)])
    store.calls.close()
    assert len(journals(store)) == 1
    assert process.poll() is None
    assert len(store.calls.find([make_key(0), make_key(-1)])) == 2


def test_a_torn_last_line_is_ignored(store: Store, reopen: Callable[[], Store]) -> None:
    append(store, [make_call(number) for number in range(3)])
    journal = journals(store)[0]
    whole = journal.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in (last + 1, (last + len(whole)) // 2, len(whole) - 1):
        journal.write_bytes(whole[:cut])
        assert len(reopen().calls.find([make_key(number) for number in range(3)])) == 2
    journal.write_bytes(whole[:last] + b"\0" * 4096)
    assert len(reopen().calls.find([make_key(number) for number in range(3)])) == 2


def test_damage_in_a_journal_is_named_before_anything_is_paid_again(store: Store, reopen: Callable[[], Store]) -> None:
    append(store, [make_call(number) for number in range(3)])
    journal = journals(store)[0]
    journal.write_bytes(journal.read_bytes().replace(b"answer 1", b"answer 7"))
    again = reopen()
    assert again.calls.find([make_key(0), make_key(2)]) == {make_key(0): make_call(0), make_key(2): make_call(2)}
    for missing in (1, 99):
        with pytest.raises(DamagedError, match=r"line 2 of .*journal-.*\.jsonl is damaged"):
            again.calls.find([make_key(missing)])
    again.close()
    assert journals(store), "a damaged journal stays, for a human to look at"


def test_a_damaged_line_can_be_taken_out_as_the_hint_says(store: Store, reopen: Callable[[], Store]) -> None:
    append(store, [make_call(number) for number in range(3)])
    journal = journals(store)[0]
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[2])
    assert len(reopen().calls.find([make_key(number) for number in range(4)])) == 2


def test_damage_in_a_segment_costs_only_what_it_hits(store: Store, reopen: Callable[[], Store]) -> None:
    append(store, [make_call(number) for number in range(2000)])
    store.close()
    path = segments(store)[0]
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    again = reopen()
    assert len(again.calls.find([make_key(number) for number in range(1000, 2000)])) == 1000
    assert again.calls.find([make_key(5000)]) == {}, "what was never recorded is not held up"
    with pytest.raises(DamagedError, match=r"2 recorded calls .*worth \$0\.002"):
        again.calls.find([make_key(0), make_key(1), make_key(1999)])


def test_a_segment_that_was_cut_short_is_noticed(store: Store, reopen: Callable[[], Store]) -> None:
    append(store, [make_call(number) for number in range(2000)])
    store.close()
    path = segments(store)[0]
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DamagedError, match="1 recorded call "):
        reopen().calls.find([make_key(1999)])


@pytest.mark.parametrize("damage", ["gone", "garbage"])
def test_an_index_is_made_again_from_its_data(store: Store, reopen: Callable[[], Store], damage: str) -> None:
    append(store, [make_call(number) for number in range(100)])
    store.close()
    index = segments(store)[0].with_name(segments(store)[0].name.replace(".jsonl.zst", ".parquet"))
    if damage == "gone":
        index.unlink()
    else:
        index.write_bytes(b"garbage")
    again = reopen()
    assert len(again.calls.find([make_key(number) for number in range(200)])) == 100


def test_damage_to_index_and_data_is_named(store: Store, reopen: Callable[[], Store]) -> None:
    append(store, [make_call(number) for number in range(2000)])
    store.close()
    path = segments(store)[0]
    path.with_name(path.name.replace(".jsonl.zst", ".parquet")).unlink()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    again = reopen()
    assert again.calls.find([make_key(0)]) == {make_key(0): make_call(0)}
    with pytest.raises(DamagedError, match="1 call that the run needs may have been recorded there"):
        again.calls.find([make_key(5000)])
    again.close()
    assert path.exists()


@pytest.mark.parametrize("reader", ["duckdb", "zstd"])
def test_a_segment_is_a_file_that_other_tools_read(store: Store, reader: str) -> None:
    import duckdb
    import pyarrow as pa

    append(store, [make_call(number) for number in range(2000)])
    store.close()
    path = segments(store)[0]
    if reader == "duckdb":
        rows = duckdb.sql(
            "select count(*), count(distinct call.key) "
            f"from read_json('{path}', compression='zstd', format='newline_delimited')"
        )
        assert rows.fetchall() == [(2000, 2000)]
    else:
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
            assert stream.read().count(b"\n") == 2000
