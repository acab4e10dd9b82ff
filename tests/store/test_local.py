"""The store as a whole: opened by path, tidied after the dead."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bqbuild.core.errors import StoreError
from bqbuild.store import open_store
from bqbuild.store.base import Store


def test_a_store_is_opened_by_path_or_file_url(tmp_path: Path) -> None:
    for path in (str(tmp_path / "a b"), f"file://{tmp_path}/c"):
        open_store(path).close()
    assert (tmp_path / "a b" / "v1").is_dir()
    assert (tmp_path / "c" / "v1").is_dir()


def test_other_stores_are_refused_plainly() -> None:
    with pytest.raises(StoreError, match="this release opens folders only") as raised:
        open_store("s3://bucket/prefix")
    assert "profiles.yml" in str(raised.value)


def test_a_store_that_cannot_be_made_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/v1"):
        open_store(str(tmp_path / "file"))


OPEN = """
import sys, pyarrow as pa
from bqbuild.store import open_store
store = open_store(sys.argv[1])
writer = store.tables.writer(pa.schema([("n", pa.int64())]))
(store.scratch / "build-key").mkdir(exist_ok=True)
print("open", flush=True)
sys.stdin.readline()
store.close()
"""


def test_the_unfinished_files_of_a_killed_process_go_and_those_of_builds_stay(
    tmp_path: Path, python: Callable[..., object]
) -> None:
    killed, living = python(OPEN), python(OPEN)
    assert killed.stdout.readline() == living.stdout.readline() == "open\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    store = open_store(str(tmp_path / "store"))
    assert len(list(store.scratch.glob("session-*/table-*"))) == 1
    assert (store.scratch / "build-key").is_dir()
    living.communicate("\n", timeout=60)
    store.close()
    assert [path.name for path in store.scratch.iterdir()] == ["build-key"]
    assert not list((store.scratch.parent / "leases").glob("session-*"))


def test_opening_a_store_loads_no_duckdb_before_it_is_needed(store: Store) -> None:
    script = "import sys, bqbuild.store; print('pyarrow' in sys.modules, 'duckdb' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout == "False False\n"
