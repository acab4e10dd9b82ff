"""Folders of files (checkpoints, reports) under the digest of their relative paths and contents."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from bqbuild.core.errors import StoreError
from bqbuild.core.hashing import Digest, digest
from bqbuild.core.records import DataFile
from bqbuild.store.content import ContentFolders, data_files, described, list_files, remove_tree
from bqbuild.store.disk import checked_json, disk_errors, read_checked, write_atomic

FILES = "files"
"""The adopted folder is kept under this name, so that it holds the user's files and nothing else."""

VERIFIED = "verified.json"
"""Beside them: what the system said of the files when their checksums were compared last. A gigabyte takes seconds."""

Stats = dict[str, list[int]]


class LocalFolders:
    """The adopted folders of a folder store."""

    def __init__(self, folders: ContentFolders, scratch: Path) -> None:
        self._folders = folders
        self._scratch = scratch

    def put(self, path: Path) -> Digest:
        """Adopt the folder at `path`, which may be gone afterwards: it is moved where that can be. Links are followed,
        empty folders don't count. Raises StoreError."""
        if not path.is_dir():
            raise StoreError(f"{path} is not a folder")
        staged = self._scratch / f"folder-{uuid4().hex}"
        with disk_errors(path):
            staged.mkdir(parents=True)
        try:
            with disk_errors(path):
                _move(path, staged / FILES)
                files = tuple(_below(file) for file in list_files(staged / FILES))
            content = digest(["folder", [[file.name, file.checksum] for file in files]])
            self._folders.publish(staged, content, {"digest": content, "files": described(files)})
            return content
        finally:
            remove_tree(staged)

    def find(self, digest: Digest) -> Path | None:
        """The local folder, or None where it is not there. Its files are compared with their checksums unless they
        were before and have stayed as they are: the same names, sizes, times and inodes.

        Raises DamagedError.
        """
        manifest = self._folders.find(digest)
        if manifest is None:
            return None
        files = data_files(manifest)
        stats = self._stats(digest, files)
        if stats is None or stats != self._verified(digest):
            self._folders.verify(digest, files)
            self._note(digest, stats)
        return self._folders.path(digest) / FILES

    def _stats(self, digest: Digest, files: Iterable[DataFile]) -> Stats | None:
        """What the system says of each file; None where one is missing."""
        found: Stats = {}
        for file in files:
            try:
                stat = os.stat(self._folders.path(digest) / file.name)
            except OSError:
                return None
            found[file.name] = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        return found

    def _verified(self, digest: Digest) -> Stats | None:
        """What it said when they were verified last."""
        try:
            known = read_checked(self._folders.path(digest) / VERIFIED)
        except (ValueError, StoreError):
            return None
        return None if known is None else known["files"]

    def _note(self, digest: Digest, stats: Stats | None) -> None:
        with contextlib.suppress(StoreError):  # a store that cannot be written is verified again each time
            write_atomic(self._folders.path(digest) / VERIFIED, checked_json({"files": stats}), self._scratch)


def _below(file: DataFile) -> DataFile:
    return DataFile(f"{FILES}/{file.name}", file.bytes, file.checksum)


def _move(source: Path, target: Path) -> None:
    if not any(path.is_symlink() for path in (source, *source.rglob("*"))):
        try:
            source.rename(target)
            return
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
    shutil.copytree(source, target)
