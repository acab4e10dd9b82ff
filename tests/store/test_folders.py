"""Folders: adopted whole, under the digest of their paths and contents."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bqbuild.core.errors import StoreError
from bqbuild.core.hashing import Digest
from bqbuild.store.base import DamagedError, Store


def make_folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        file = path / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


def test_a_folder_is_found_under_its_content(store: Store, reopen: Callable[[], Store], tmp_path: Path) -> None:
    digest = store.folders.put(make_folder(tmp_path / "c", weights="w", tokenizer__vocab="v"))
    for each in (store, reopen()):
        found = each.folders.find(digest)
        assert found is not None
        assert sorted(path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()) == [
            "tokenizer/vocab",
            "weights",
        ]
        assert (found / "tokenizer" / "vocab").read_text() == "v"
    assert store.folders.find(Digest("0" * 32)) is None


def test_names_places_and_contents_count(store: Store, tmp_path: Path) -> None:
    contents = [
        {"a": "x", "b": "y"},
        {"a": "y", "b": "x"},
        {"a": "xy"},
        {"d__a": "x", "b": "y"},
        {"a": "x", "d__b": "y"},
    ]
    digests = [store.folders.put(make_folder(tmp_path / str(n), **files)) for n, files in enumerate(contents)]
    assert len(set(digests)) == 5
    again = store.folders.put(make_folder(tmp_path / "again", **contents[0]))
    assert again == digests[0]


def test_links_are_followed_and_empty_folders_do_not_count(store: Store, tmp_path: Path) -> None:
    plain = store.folders.put(make_folder(tmp_path / "plain", a="x"))
    linked = tmp_path / "linked"
    (linked / "empty").mkdir(parents=True)
    os.symlink(make_folder(tmp_path / "elsewhere", a="x") / "a", linked / "a")
    assert store.folders.put(linked) == plain
    assert (tmp_path / "elsewhere" / "a").exists()


def test_a_damaged_file_is_named_and_the_folder_is_set_aside(
    store: Store, reopen: Callable[[], Store], tmp_path: Path
) -> None:
    digest = store.folders.put(make_folder(tmp_path / "c", weights="wwww"))
    found = store.folders.find(digest)
    assert found is not None
    (found / "weights").write_text("wwwx")
    again = reopen()
    with pytest.raises(DamagedError, match="weights is damaged: its checksum"):
        again.folders.find(digest)
    assert again.folders.find(digest) is None
    assert again.folders.put(make_folder(tmp_path / "c", weights="wwww")) == digest
    assert again.folders.find(digest) is not None


def test_what_is_no_folder_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a folder"):
        store.folders.put(tmp_path / "nothing")


def test_files_that_were_verified_and_stayed_as_they_are_are_not_read_again(
    store: Store, reopen: Callable[[], Store], tmp_path: Path
) -> None:
    digest = store.folders.put(make_folder(tmp_path / "c", weights="w" * 100))
    found = store.folders.find(digest)
    assert found is not None
    file = found / "weights"
    stat = file.stat()
    file.write_text("v" * 100)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as nothing but a broken disk would change it
    assert reopen().folders.find(digest) == found
    os.utime(file)
    with pytest.raises(DamagedError, match="its checksum does not match"):
        reopen().folders.find(digest)
