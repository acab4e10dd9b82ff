"""A full disk ends things with a clear message, and keeps what was there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bqbuild.store import open_store
from tests.store.conftest import make_key

PRELUDE = """
import asyncio, resource, sys
from pathlib import Path
import pyarrow as pa
from bqbuild.core.errors import StoreError
from bqbuild.store import open_store
from tests.store.conftest import make_call
store = open_store(sys.argv[1])
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
"""

TABLE = (
    PRELUDE
    + """
limit(200_000)
import os
writer = store.tables.writer(pa.schema([("b", pa.binary())]), ordered=sys.argv[2] == "ordered")
rows = pa.table({"b": [os.urandom(1000) for _ in range(10_000)]})
if sys.argv[2] == "ordered":
    rows = rows.add_column(0, "_bq_order", rows.column("b"))
try:
    writer.write(rows)
    writer.commit()
except StoreError as error:
    print(error)
store.close()
"""
)

SMALL_FILES = (
    PRELUDE
    + """
from bqbuild.core.hashing import digest
from bqbuild.core.records import Trace
from bqbuild.store.base import Pointer
limit(0)
def trace():
    store.traces.put(Trace(digest(1), "n", "sql", digest(2), {}, {}, {}))
def environment():
    store.environments.move("p/dev", {"n": Pointer(digest(1), {})})
def folder():
    path = Path(sys.argv[2]); path.mkdir(); (path / "a").touch()
    store.folders.put(path)
def call():
    asyncio.run(store.calls.append(make_call(1)))
for act in (trace, environment, folder, call):
    try:
        act()
        print("no error from", act.__name__)
    except StoreError as error:
        print("StoreError", error.message.split(":")[0].split("/")[0], "hint" if error.hint else "")
"""
)

CALLS = (
    PRELUDE
    + """
limit(100_000)
async def main():
    for start in range(0, 2000, 50):
        await asyncio.gather(*(store.calls.append(make_call(start + step)) for step in range(50)))
asyncio.run(main())
print("recorded")
"""
)

FULL = (
    PRELUDE
    + """
import os
kept = refused = 0
async def one(number):
    global kept, refused
    try:
        await store.calls.append(make_call(number, text="x" * 3000))
        kept += 1
    except StoreError as error:
        refused += 1
        assert "no space left" in error.message, error
        assert "free some space" in error.hint
async def main():
    for start in range(0, 20_000, 20):
        await asyncio.gather(*(one(start + step) for step in range(20)))
        if is_full():
            break
def is_full():
    try:
        return store.calls.room() < 1
    except StoreError as error:
        assert "no space left" in error.message, error
        assert "free some space" in error.hint
        return True
if sys.argv[2] == "refill":
    # somebody else takes the rest: an answer that was on its way finds no space but the reserve
    asyncio.run(one(20_000))
    other = os.open(sys.argv[1] + "/other", os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(other, bytes(4096)):
            pass
    except OSError:
        os.close(other)
asyncio.run(main())
print(kept, refused)
sys.stdout.flush()
os._exit(0)
"""
)


@pytest.mark.parametrize("kind", ["plain", "ordered"])
def test_a_table_that_does_not_fit_is_a_clear_error(
    tmp_path: Path, python: Callable[..., subprocess.Popen[str]], kind: str
) -> None:
    out, error = python(TABLE, kind).communicate(timeout=60)
    assert error == ""
    assert "no space left to write" in out
    assert "hint: free some space" in out
    assert not (tmp_path / "store" / "v1" / "tables").exists()
    assert not list((tmp_path / "store" / "v1" / "scratch").iterdir())


def test_small_files_that_do_not_fit_are_clear_errors(
    tmp_path: Path, python: Callable[..., subprocess.Popen[str]]
) -> None:
    out, _ = python(SMALL_FILES, tmp_path / "folder").communicate(timeout=60)
    assert out.splitlines() == ["StoreError no space left to write  hint"] * 4


def test_a_journal_that_reached_its_limit_is_followed_by_another(
    tmp_path: Path, python: Callable[..., subprocess.Popen[str]]
) -> None:
    out, _ = python(CALLS).communicate(timeout=60)
    assert out == "recorded\n"
    store = open_store(str(tmp_path / "store"))
    assert len(store.calls.find([make_key(number) for number in range(2000)])) == 2000
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "store"
    path.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(path)], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("a small disk can only be mounted by root")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("how", ["fill", "refill"])
def test_answers_in_flight_when_the_disk_fills_up_are_kept(
    small_disk: Path, python: Callable[..., subprocess.Popen[str]], how: str
) -> None:
    out, error = python(FULL, how).communicate(timeout=120)
    assert "Traceback" not in error
    kept, refused = map(int, out.split())
    assert refused == 0
    assert kept >= (20 if how == "refill" else 1000)
    (small_disk / "other").unlink(missing_ok=True)
    store = open_store(str(small_disk))
    assert len(store.calls.find([make_key(number) for number in (*range(kept), 20_000)])) == kept
    store.close()
