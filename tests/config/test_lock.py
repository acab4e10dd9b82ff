"""The lock of sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from bqbuild.config.lock import SourcesLock, parse_lock, read_lock
from bqbuild.core.errors import ProjectError
from bqbuild.core.records import Column

LOCK = SourcesLock().with_source("notes", [Column("id", "bigint"), Column("text", "varchar")])
ODD = ["a b", "true", "null", "é", "1", "x: y", "'", '"', "#", "", "a\nb", "no", "~", "under_score", "-"]


def test_a_lock_that_is_not_there_is_empty(tmp_path: Path) -> None:
    lock = read_lock(tmp_path / "sources.lock")
    assert lock.sources == {}
    assert lock.columns("notes") is None


def test_a_lock_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "project" / "sources.lock"
    lock = LOCK.with_source("a.b", [Column(name, "varchar[]") for name in ODD]).with_source("empty", [])
    assert lock.write(path)
    assert read_lock(path) == lock
    assert [column.name for column in read_lock(path).columns("a.b") or ()] == ODD


def test_sources_are_sorted_and_columns_are_not() -> None:
    lock = LOCK.with_source("a", [Column("z", "json"), Column("y", "double")])
    assert lock.text().splitlines()[1:] == [
        "sources:",
        "  a:",
        "    z: json",
        "    y: double",
        "  notes:",
        "    id: bigint",
        "    text: varchar",
    ]


def test_the_file_is_written_only_where_something_changed(tmp_path: Path) -> None:
    path = tmp_path / "sources.lock"
    assert LOCK.write(path)
    before = path.stat()
    assert not LOCK.write(path)
    assert path.stat().st_ino == before.st_ino
    assert LOCK.without_source("notes").write(path)
    assert read_lock(path).sources == {}
    assert [each.name for each in tmp_path.iterdir()] == ["sources.lock"]


@pytest.mark.parametrize(
    "text", ["", "[]", "sources: 1", "other: {}", "sources: {a: [b]}", "sources: {a: {b: 1}}", "{"]
)
def test_a_file_that_is_no_lock_is_an_error(text: str) -> None:
    with pytest.raises(ProjectError, match=r"lock|broken YAML|columns to types"):
        parse_lock(text)
