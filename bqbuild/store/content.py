"""Content-addressed folders, for tables and checkpoints: appear whole, are verified once, set aside when damaged.

<root>/ab/<digest>/<files…>     ab: the first two digits of the digest
<root>/ab/<digest>/<manifest>   written last: what the files are, with its own checksum
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from bqbuild.core.hashing import Digest, digest_file
from bqbuild.core.records import DataFile
from bqbuild.store.base import DamagedError
from bqbuild.store.disk import checked_json, disk_errors, fsync, locked, make_folder, read_checked

log = logging.getLogger(__name__)


class ContentFolders:
    """Folders under one root, each named by its digest and described by a manifest that is written last."""

    def __init__(
        self,
        root: Path,
        *,
        manifest: str,
        what: str,
        damaged: Path,
        locks: Path,
        mark: Callable[[Iterable[str]], None],
    ) -> None:
        self.root = root
        self.manifest = manifest
        self.what = what
        self.damaged = damaged
        self.locks = locks
        self._mark = mark
        self._verified: dict[Path, tuple[int, int, int]] = {}
        self._guard = threading.Lock()

    def unmarked(self) -> ContentFolders:
        """The same folders, for who holds the gate and says of nothing that it is in use."""
        return ContentFolders(
            self.root,
            manifest=self.manifest,
            what=self.what,
            damaged=self.damaged,
            locks=self.locks,
            mark=lambda digests: None,
        )

    def path(self, digest: Digest) -> Path:
        """Where the folder of this digest is, or would be."""
        return self.root / digest[:2] / digest

    def find(self, digest: Digest) -> dict[str, Any] | None:
        """The manifest, or None where it is not there; a manifest that is damaged is set aside, and logged."""
        self._mark([digest])
        try:
            return self._manifest(digest)
        except ValueError as error:
            path = self.path(digest) / self.manifest
            log.warning("%s is damaged (%s) and was set aside; it will be built again", path, error)
            self.set_aside(digest)
            return None

    def is_whole(self, digest: Digest, files: Iterable[DataFile]) -> bool:
        """Whether every file is there with its size; contents are not looked at."""
        folder = self.path(digest)
        for file in files:
            try:
                if os.stat(folder / file.name).st_size != file.bytes:
                    return False
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def verify(self, digest: Digest, files: Iterable[DataFile]) -> None:
        """Compare each file with its checksum, once in a process while the file stays the same.

        Raises DamagedError, having set the folder aside.
        """
        for file in files:
            path = self.path(digest) / file.name
            problem = self._problem(path, file)
            if problem:
                self.set_aside(digest)
                raise DamagedError(
                    f"{path} is damaged: {problem}",
                    hint=f"the {self.what} was set aside in {self.damaged}; run again to make it anew",
                    digest=digest,
                )

    def publish(self, staged: Path, digest: Digest, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a finished folder appear under its digest, and give the manifest in force.

        Where an equal and sound folder is there already (its files may be cut differently), `staged` is left alone.
        """
        target = self.path(digest)
        self._mark([digest])
        with disk_errors(target):
            (staged / self.manifest).write_bytes(checked_json(manifest))
            for path in staged.rglob("*"):
                fsync(path)
            fsync(staged)
            make_folder(target.parent)
        with self._locked(digest):
            existing = self._sound_manifest(digest)
            if existing is not None:
                return existing
            self._move_aside(digest)
            staged.rename(target)
            fsync(target.parent)
        for file in data_files(manifest):
            self._remember(target / file.name)
        return manifest

    def digests(self) -> list[Digest]:
        """The names of all folders that there are, sorted. Raises OSError."""
        return sorted(Digest(path.name) for path in self.root.glob("??/*") if path.is_dir())

    def problem(self, digest: Digest) -> tuple[Path, str] | None:
        """Which file of a folder that is there is not as written, and why. Raises StoreError."""
        path = self.path(digest) / self.manifest
        try:
            manifest = self._manifest(digest)
        except ValueError as error:
            return path, str(error)
        if manifest is None:
            return path, "it is missing"
        for file in data_files(manifest):
            problem = self._problem(self.path(digest) / file.name, file)
            if problem:
                return self.path(digest) / file.name, problem
        return None

    def set_aside(self, digest: Digest) -> None:
        """Move a damaged folder out of sight, unless a sound one took its place meanwhile."""
        with self._locked(digest):
            if self._sound_manifest(digest) is None:
                self._move_aside(digest)

    @contextmanager
    def _locked(self, digest: Digest) -> Iterator[None]:
        with locked(self.locks / f"{self.manifest}-{digest[:2]}.lock"), disk_errors(self.path(digest)):
            yield

    def _move_aside(self, digest: Digest) -> None:
        if self.path(digest).exists():
            self.damaged.mkdir(parents=True, exist_ok=True)
            self.path(digest).rename(self.damaged / f"{digest}-{uuid4().hex[:8]}")

    def _sound_manifest(self, digest: Digest) -> dict[str, Any] | None:
        """The manifest of the folder that is there, if its files are what the manifest says."""
        try:
            manifest = self._manifest(digest)
        except ValueError:
            return None
        if manifest is None or any(self._problem(self.path(digest) / file.name, file) for file in data_files(manifest)):
            return None
        return manifest

    def _manifest(self, digest: Digest) -> dict[str, Any] | None:
        """The manifest, or None. Raises ValueError where it is damaged, or another folder's."""
        manifest = read_checked(self.path(digest) / self.manifest)
        if manifest is not None and manifest.get("digest") != digest:
            raise ValueError("it belongs to another folder")
        return manifest

    def _problem(self, path: Path, file: DataFile) -> str | None:
        with disk_errors(path):
            try:
                stat = os.stat(path)
            except FileNotFoundError:
                return "it is missing"
            if stat.st_size != file.bytes:
                return f"it has {stat.st_size:,} bytes, not {file.bytes:,}"
            seen = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
            with self._guard:
                if self._verified.get(path) == seen:
                    return None
            if digest_file(path) != file.checksum:
                return "its checksum does not match"
        with self._guard:
            self._verified[path] = seen
        return None

    def _remember(self, path: Path) -> None:
        stat = os.stat(path)
        with self._guard:
            self._verified[path] = (stat.st_size, stat.st_mtime_ns, stat.st_ino)


def data_files(manifest: Mapping[str, Any]) -> tuple[DataFile, ...]:
    """The files that a manifest lists."""
    return tuple(DataFile(file["name"], file["bytes"], Digest(file["checksum"])) for file in manifest["files"])


def described(files: Iterable[DataFile]) -> list[dict[str, Any]]:
    """Files as a manifest lists them."""
    return [{"name": file.name, "bytes": file.bytes, "checksum": file.checksum} for file in files]


def list_files(folder: Path) -> tuple[DataFile, ...]:
    """Every file below `folder`, by relative path with `/`, in order of names. Raises OSError."""
    paths = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    return tuple(DataFile(name, path.stat().st_size, digest_file(path)) for name, path in paths)


def remove_tree(path: Path) -> None:
    """Remove a folder of unfinished work, if it is there; a leftover does no harm."""
    shutil.rmtree(path, ignore_errors=True)
