"""Folders of files (checkpoints, reports) under the digest of their relative paths and contents."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from uuid import uuid4

from bqbuild.core.errors import StoreError
from bqbuild.core.hashing import Digest, digest
from bqbuild.core.records import DataFile
from bqbuild.store.content import ContentFolders, data_files, described, list_files, remove_tree
from bqbuild.store.disk import disk_errors

FILES = "files"
"""The adopted folder is kept under this name, so that it holds the user's files and nothing else."""


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
        """The local folder, or None where it is not there; its files are verified once in a process.

        Raises DamagedError.
        """
        manifest = self._folders.find(digest)
        if manifest is None:
            return None
        self._folders.verify(digest, data_files(manifest))
        return self._folders.path(digest) / FILES


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
