"""Tables: whole or not there, found by content, never trusted when damaged."""

from __future__ import annotations

import datetime as dt
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from bqbuild.core.errors import StoreError
from bqbuild.core.hashing import Digest
from bqbuild.core.records import Table
from bqbuild.store.base import ORDER, DamagedError, Store
from bqbuild.store.digests import table_digest
from bqbuild.store.sorting import sorted_tables

SCHEMA = pa.schema([("n", pa.int64()), ("s", pa.string())])


def put(store: Store, rows: pa.Table) -> Table:
    writer = store.tables.writer(rows.schema)
    writer.write(rows)
    return writer.commit()


def numbers(count: int) -> pa.Table:
    return pa.table({"n": range(count), "s": [f"row {number}" for number in range(count)]}, schema=SCHEMA)


def read(store: Store, table: Table, columns: list[str] | None = None) -> list[dict[str, object]]:
    return [row for batch in store.tables.batches(table, columns) for row in batch.to_pylist()]


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_table_comes_back_as_it_was_written(store: Store, reopen: Callable[[], Store]) -> None:
    rows = pa.table(
        {
            "n": [1, None],
            "tags": [["a", None], None],
            "at": pa.array([dt.datetime(2020, 1, 1), None], pa.timestamp("us")),
            "place": pa.array([{"file": "f", "line": 1}, None]),
        }
    )
    table = put(store, rows)
    assert table.rows == 2
    assert [column.type for column in table.columns] == [
        "bigint",
        "varchar[]",
        "timestamp",
        "struct(file varchar, line bigint)",
    ]
    again = reopen()
    found = again.tables.find(table.digest)
    assert found == table
    assert read(again, found) == rows.to_pylist()


def test_the_digest_is_that_of_the_content(store: Store) -> None:
    rows = numbers(100)
    writer = store.tables.writer(SCHEMA)
    for start in (50, 0):
        for batch in rows.slice(start, 50).to_batches(max_chunksize=7):
            writer.write(batch)
    assert writer.commit().digest == put(store, rows).digest == table_digest(rows)


def test_a_table_without_rows_has_one_file_and_its_columns(store: Store) -> None:
    table = store.tables.writer(SCHEMA).commit()
    assert (table.rows, len(table.files)) == (0, 1)
    assert read(store, table) == []
    assert store.tables.find(table.digest) == table


def test_nothing_is_visible_before_commit_or_after_abort(store: Store) -> None:
    writer = store.tables.writer(SCHEMA)
    writer.write(numbers(3))
    assert store.tables.find(table_digest(numbers(3))) is None
    writer.abort()
    assert store.tables.find(table_digest(numbers(3))) is None
    assert not list(store.scratch.glob("session-*/table-*"))
    with pytest.raises(StoreError, match="committed or aborted"):
        writer.commit()


def test_an_equal_table_is_reused(store: Store) -> None:
    first = put(store, numbers(10))
    path = store.tables.files(first)[0]
    before = path.stat().st_mtime_ns
    assert put(store, numbers(10).take(list(range(9, -1, -1)))) == first
    assert path.stat().st_mtime_ns == before
    assert not list(store.scratch.glob("session-*/table-*"))


def test_columns_are_read_in_the_order_asked_for(store: Store) -> None:
    table = put(store, numbers(2))
    assert read(store, table, ["s"]) == [{"s": "row 0"}, {"s": "row 1"}]
    assert [batch.schema.names for batch in store.tables.batches(table, ["s", "n"])] == [["s", "n"]]
    with pytest.raises(StoreError, match="no column `nn`"):
        read(store, table, ["nn"])


def test_columns_with_dots_in_their_names_are_not_mixed_up(store: Store) -> None:
    rows = pa.table({"a": pa.array([{"b": 1}]), "a.b": ["x"], "a b": [True]})
    table = put(store, rows)
    assert read(store, table, ["a"]) == [{"a": {"b": 1}}]
    assert read(store, table, ["a.b"]) == [{"a.b": "x"}]
    assert read(store, table) == rows.to_pylist()


def test_rows_that_come_out_of_order_are_sorted_on_commit(store: Store) -> None:
    writer = store.tables.writer(SCHEMA, ordered=True)
    for number in (3, 1, 2, 0):
        row = {ORDER: bytes([number]), "n": number, "s": None}
        writer.write(pa.RecordBatch.from_pylist([row], schema=pa.schema([(ORDER, pa.binary()), *SCHEMA])))
    table = writer.commit()
    assert [row["n"] for row in read(store, table)] == [0, 1, 2, 3]
    assert [column.name for column in table.columns] == ["n", "s"]


def test_an_ordered_table_without_rows_is_a_table(store: Store) -> None:
    assert store.tables.writer(SCHEMA, ordered=True).commit() == store.tables.writer(SCHEMA).commit()


def test_sorting_on_disk_gives_what_sorting_in_memory_gives(tmp_path: Path) -> None:
    rows = pa.table(
        {
            ORDER: pa.array([f"{(number * 7919) % 5000:08d}".encode() for number in range(5000)], pa.binary()),
            "n": pa.array(range(5000), pa.uint16()),
            "tags": [["x", None]] * 5000,
            "at": pa.array([number * 1000 for number in range(5000)], pa.timestamp("ns", "UTC")),
            'odd "name"': [None] * 5000,
        }
    )
    path = tmp_path / "rows.parquet"
    pa.parquet.write_table(rows, path)

    def ordered(limit: int) -> list[int]:
        return [
            row
            for piece in sorted_tables([path], rows.schema, tmp_path, limit)
            for row in piece.column("n").to_pylist()
        ]

    assert (
        ordered(0)
        == ordered(1 << 30)
        == [row for _, row in sorted(zip(rows[ORDER].to_pylist(), range(5000), strict=True))]
    )


def test_two_rows_with_one_id_are_an_error_that_names_it(store: Store) -> None:
    writer = store.tables.writer(pa.schema([("_bq_id", pa.string())]))
    writer.write(pa.table({"_bq_id": ["a", "b"]}))
    writer.write(pa.table({"_bq_id": ["c", "b"]}))
    with pytest.raises(StoreError, match="two rows have the same `_bq_id` b"):
        writer.commit()
    writer = store.tables.writer(pa.schema([("_bq_id", pa.string())]))
    writer.write(pa.table({"_bq_id": pa.array([None], pa.string())}))
    with pytest.raises(StoreError, match="no `_bq_id`"):
        writer.commit()


def test_large_tables_are_cut_into_parts_and_row_groups(store: Store) -> None:
    writer = store.tables.writer(pa.schema([("n", pa.int64())]))
    for start in range(0, 2_500_000, 250_000):
        writer.write(pa.table({"n": pa.array(range(start, start + 250_000))}))
    table = writer.commit()
    assert [file.name for file in table.files] == ["part-0000.parquet", "part-0001.parquet", "part-0002.parquet"]
    sizes = [batch.num_rows for batch in store.tables.batches(table)]
    assert max(sizes) <= 8192
    assert sum(sizes) == table.rows == 2_500_000


def test_rows_of_many_megabytes_make_small_row_groups(store: Store) -> None:
    rows = pa.table({"s": ["x" * 20_000_000] * 4})
    table = put(store, rows)
    metadata = pa.parquet.read_metadata(store.tables.files(table)[0])
    assert metadata.num_row_groups == 4


def test_a_content_digest_is_of_the_tuples_of_its_columns(store: Store) -> None:
    table = put(store, pa.table({"a": ["x", "y"], "b": ["1", "2"], "c": [1, 2]}))
    same_read = put(store, pa.table({"c": [9, 8], "b": ["2", "1"], "a": ["y", "x"], "d": [0, 0]}))
    crossed = put(store, pa.table({"a": ["x", "y"], "b": ["2", "1"], "c": [1, 2]}))
    digest = store.tables.content_digest
    assert digest(table, ["a", "b"]) == digest(same_read, ["b", "a", "a"])
    assert digest(table, ["a", "b"]) != digest(crossed, ["a", "b"])
    assert digest(table, ["a"]) == digest(crossed, ["a"])
    assert len({digest(table, columns) for columns in (["a"], ["b"], ["c"], ["a", "b"], [])}) == 5
    with pytest.raises(StoreError, match="no column"):
        digest(table, ["z"])


def test_a_node_that_reads_no_column_reads_the_number_of_rows(store: Store) -> None:
    one, other, more = (put(store, pa.table({"a": rows})) for rows in ([1, 2], [3, 4], [1, 2, 3]))
    digest = store.tables.content_digest
    assert digest(one, []) == digest(other, []) != digest(more, [])


def test_content_digests_are_remembered_beside_the_table(store: Store, reopen: Callable[[], Store]) -> None:
    table = put(store, numbers(10))
    digest = store.tables.content_digest(table, ["n"])
    folder = store.tables.files(table)[0].parent
    again = reopen()
    (folder / "part-0000.parquet").rename(folder / "elsewhere")  # not read again
    assert again.tables.content_digest(table, ["n"]) == digest
    (folder / "elsewhere").rename(folder / "part-0000.parquet")
    for note in (folder / "content").iterdir():
        flip_a_byte(note)
    assert reopen().tables.content_digest(table, ["n"]) == digest


def test_a_damaged_file_is_named_set_aside_and_made_anew(store: Store, reopen: Callable[[], Store]) -> None:
    table = put(store, numbers(1000))
    path = store.tables.files(table)[0]
    flip_a_byte(path)
    assert reopen().tables.find(table.digest) == table, "names and sizes are still right"
    with pytest.raises(DamagedError, match=r"part-0000\.parquet is damaged: its checksum does not match"):
        store.tables.files(table)
    assert store.tables.find(table.digest) is None
    assert reopen().tables.find(table.digest) is None
    assert put(store, numbers(1000)) == table
    assert len(read(store, table)) == 1000


def test_a_file_that_was_cut_short_is_not_found_and_made_anew(store: Store, reopen: Callable[[], Store]) -> None:
    table = put(store, numbers(1000))
    path = store.tables.files(table)[0]
    path.write_bytes(path.read_bytes()[:-10])
    again = reopen()
    assert again.tables.find(table.digest) is None
    with pytest.raises(DamagedError, match="bytes, not"):
        list(again.tables.batches(table))
    assert put(again, numbers(1000)) == table
    assert len(read(again, table)) == 1000


def test_writing_an_equal_table_over_a_damaged_one_replaces_it(store: Store, reopen: Callable[[], Store]) -> None:
    table = put(store, numbers(1000))
    flip_a_byte(store.tables.files(table)[0])
    again = reopen()
    put(again, numbers(1000))
    assert len(read(again, table)) == 1000


@pytest.mark.parametrize("damage", ["garbage", "empty", "flipped"])
def test_a_damaged_manifest_is_set_aside(store: Store, reopen: Callable[[], Store], damage: str) -> None:
    table = put(store, numbers(3))
    manifest = store.tables.files(table)[0].parent / "table.json"
    if damage == "flipped":
        manifest.write_bytes(manifest.read_bytes().replace(b'"rows":3', b'"rows":4'))
    else:
        manifest.write_bytes(b"" if damage == "empty" else b"[1]")
    again = reopen()
    assert again.tables.find(table.digest) is None
    assert put(again, numbers(3)) == table


def test_a_missing_table_or_file_is_not_found(store: Store, reopen: Callable[[], Store]) -> None:
    table = put(store, numbers(3))
    assert store.tables.find(Digest("0" * 32)) is None
    store.tables.files(table)[0].unlink()
    assert store.tables.find(table.digest) is None
    assert reopen().tables.find(table.digest) is None


def test_a_table_that_another_run_cut_differently_is_read_as_it_lies(store: Store, reopen: Callable[[], Store]) -> None:
    other = reopen()
    mine = put(store, numbers(100))
    flip_a_byte(store.tables.files(mine)[0])
    with pytest.raises(DamagedError):
        store.tables.files(mine)
    put(other, numbers(100).take(list(range(99, -1, -1))))
    assert {row["n"] for row in read(store, mine)} == set(range(100))


COMMIT = """
import sys, pyarrow as pa
from bqbuild.store import open_store
store = open_store(sys.argv[1])
turn = int(sys.argv[2])
rows = pa.table({"n": pa.array(range(50_000)), "s": [str(n) for n in range(50_000)]})
writer = store.tables.writer(rows.schema)
for start in (range(0, 50_000, 5000) if turn % 2 else range(45_000, -1, -5000)):
    writer.write(rows.slice(start, 5000))
print("ready", flush=True)
sys.stdin.readline()
table = writer.commit()
assert sum(batch.num_rows for batch in store.tables.batches(table)) == 50_000
print(table.digest)
store.close()
"""


def test_processes_that_commit_one_table_at_once_share_it(store: Store, python: Callable[..., object]) -> None:
    processes = [python(COMMIT, turn) for turn in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [error for _, error in outputs] == ["", "", ""]
    assert len({out for out, _ in outputs}) == 1
    table = store.tables.find(Digest(outputs[0][0].strip()))
    assert table is not None
    assert table.rows == 50_000


KILLED = """
import sys, pyarrow as pa
from bqbuild.store import open_store
from bqbuild.store.digests import table_digest
store = open_store(sys.argv[1])
number = int(sys.argv[2])
while True:
    rows = pa.table({"n": pa.array(range(number, number + 20_000))})
    print("start", table_digest(rows), flush=True)
    writer = store.tables.writer(rows.schema)
    writer.write(rows)
    print("done", writer.commit().digest, flush=True)
    number += 1
"""


def test_kill_9_leaves_whole_tables_or_none(reopen: Callable[[], Store], python: Callable[..., object]) -> None:
    for turn in range(4):
        process = python(KILLED, turn * 1000)
        lines = [process.stdout.readline() for _ in range(6 + turn)]
        process.send_signal(signal.SIGKILL)
        lines += process.communicate()[0].splitlines(keepends=True)
        store = reopen()
        for line in lines:
            state, _, digest = line.strip().partition(" ")
            table = store.tables.find(Digest(digest))
            if table is not None:
                assert sum(batch.num_rows for batch in store.tables.batches(table)) == 20_000
            assert table is not None or state != "done" or not line.endswith("\n")


def test_a_thousand_writes_of_one_row_make_one_row_group(store: Store) -> None:
    writer = store.tables.writer(SCHEMA)
    for batch in numbers(1000).to_batches(max_chunksize=1):
        writer.write(batch)
    table = writer.commit()
    assert table.digest == table_digest(numbers(1000))
    assert pyarrow.parquet.read_metadata(store.tables.files(table)[0]).num_row_groups == 1
