"""Which files a source is, and what is in them by digest. Reads directories and bytes, never rows."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bqbuild.core.errors import BuildError, ProjectError, Where, did_you_mean
from bqbuild.core.hashing import Digest, digest, digest_file

if TYPE_CHECKING:  # looking for files validates nothing
    from bqbuild.config.specs import SourceSpec

T = TypeVar("T")

PACKAGE = "pkg://"
FORMAT_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".json": "json",
    ".txt": "text",
    ".rst": "text",
    ".md": "markdown",
}
NAMED_FORMATS = frozenset({"text", "markdown"})
"""Formats whose rows hold the file's name, so that a renamed file is changed content."""

RACY_SECONDS = 2.0
"""A file younger than this when it is hashed may change again within one tick of its clock: not remembered."""


@dataclass(frozen=True, slots=True, order=True)
class SourceFile:
    """One file of a source: what the column `file` calls it (relative to `project/`), and where it is."""

    name: str
    path: Path

    @property
    def shown_as(self) -> str:
        """What messages call it: a path from the project's root, or `pkg://…`."""
        return self.name if self.name.startswith(PACKAGE) else os.path.normpath(os.path.join("project", self.name))


def source_format(spec: SourceSpec, where: Where | None = None) -> str:
    """The declared format, or the one that the file's suffix tells. Raises ProjectError where neither does."""
    if spec.format is not None:
        return spec.format
    formats = {FORMAT_BY_SUFFIX.get(Path(path).suffix.lower()) for path in spec.path}
    if len(formats) == 1 and None not in formats:
        return str(formats.pop())
    raise ProjectError(
        f"the format of source `{spec.name}` cannot be told from its path",
        where=where,
        hint="add `format: jsonl`, or csv, parquet, json, text, markdown",
    )


def source_files(spec: SourceSpec, root: Path, where: Where | None = None) -> list[SourceFile]:
    """The files of a source in a project at `root`, sorted by name; each once.

    A source with a `url` whose path does not exist is one file below `.bqbuild/downloads`, there or not (`fetch`).
    Raises BuildError where a path, glob or package matches nothing, ProjectError for a `url` without `sha256`.
    """
    found: dict[Path, SourceFile] = {}
    for pattern in spec.path:
        files = _package_files(spec, pattern, where) if pattern.startswith(PACKAGE) else _local_files(pattern, root)
        if not files and spec.url is not None and not glob.has_magic(pattern):
            files = [_download_place(spec, pattern, root, where)]
        if not files:
            raise _nothing(spec, pattern, root, where)
        for file in files:
            found.setdefault(file.path, file)
    return sorted(found.values())


def files_digest(spec: SourceSpec, files: Sequence[SourceFile], cache: Path) -> Digest:
    """Digest of the content of a source's files; `cache` is the file that remembers hashes by size, times and inode.

    The order of the files never counts, and their names only where the format puts them into rows. A file with a
    declared `sha256` counts as that, so that it need not be there yet.
    """
    if spec.sha256 is not None:
        return digest({"sha256": spec.sha256.lower()})
    hashes = hash_files([file.path for file in files], cache)
    named = source_format(spec) in NAMED_FORMATS
    return digest(sorted([file.name if named else "", hashes[file.path]] for file in files))


def hash_files(paths: Sequence[Path], cache: Path, hash_one: Callable[[Path], str] = digest_file) -> dict[Path, str]:
    """The hash of each file, remembered in `cache`. Raises BuildError for a file that can't be read."""
    known = _read_cache(cache)
    hashes: dict[Path, str] = {}
    fresh: dict[str, list[object]] = {}
    for path in paths:
        stat = _stat(path)
        stamp = [hash_one.__name__, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        entry = known.get(str(path))
        if isinstance(entry, list) and entry[:-1] == stamp:
            hashes[path] = str(entry[-1])
            continue
        hashes[path] = str(_reading(path, hash_one))
        if time.time() - stat.st_mtime > RACY_SECONDS:
            fresh[str(path)] = [*stamp, hashes[path]]
    if fresh:
        _write_cache(cache, known | fresh)
    return hashes


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(spec: SourceSpec, files: Sequence[SourceFile], where: Where | None = None) -> None:
    """Download what a source with a `url` lacks. Raises BuildError where that fails or gives other bytes."""
    for file in files:
        if spec.url is not None and not file.path.exists():
            _download(spec, spec.url, file.path, where)


def check_sha256(
    spec: SourceSpec,
    files: Sequence[SourceFile],
    cache: Path,
    where: Where | None = None,
) -> None:
    """Raises BuildError where a source declares a `sha256` and its file has another."""
    if spec.sha256 is None:
        return
    if len(files) != 1:
        raise BuildError(f"source `{spec.name}` has a sha256 but {len(files)} files", where=where)
    found = hash_files([files[0].path], cache, sha256_file)[files[0].path]
    if found != spec.sha256.lower():
        raise BuildError(
            f"{files[0].shown_as} is not the file that source `{spec.name}` declares: its sha256 is {found}",
            where=where,
            hint="restore the file, or declare the new sha256",
        )


def _local_files(pattern: str, root: Path) -> list[SourceFile]:
    """Paths and globs are relative to `project/`; a folder is no file."""
    base = root / "project"
    names = glob.glob(pattern, root_dir=base, recursive=True) if glob.has_magic(pattern) else [pattern]
    files = []
    for name in names:
        path = Path(os.path.normpath(base / name))
        if path.is_file():
            files.append(SourceFile(Path(name).as_posix(), path))
    return files


def _package_files(spec: SourceSpec, pattern: str, where: Where | None) -> list[SourceFile]:
    """`pkg://package/file`: the package is found without being imported."""
    package, _, inside = pattern.removeprefix(PACKAGE).partition("/")
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        raise BuildError(
            f"source `{spec.name}` reads {pattern}, but the package `{package}` is not installed",
            where=where,
            hint=f"install it: pip install {package.partition('.')[0].replace('_', '-')}",
        )
    for location in found.submodule_search_locations:
        names = glob.glob(inside, root_dir=location, recursive=True) if glob.has_magic(inside) else [inside]
        paths = [(name, Path(location, name)) for name in names]
        files = [
            SourceFile(f"{PACKAGE}{package}/{Path(name).as_posix()}", path) for name, path in paths if path.is_file()
        ]
        if files:
            return files
    return []


def _download_place(spec: SourceSpec, pattern: str, root: Path, where: Where | None) -> SourceFile:
    if spec.sha256 is None:
        raise ProjectError(
            f"source `{spec.name}` has a url but no sha256",
            where=where,
            hint="declare the sha256 of the file, so that what is downloaded is what was meant",
        )
    name = Path(pattern).name
    return SourceFile(pattern, root / ".bqbuild" / "downloads" / spec.sha256.lower() / name)


def _download(spec: SourceSpec, url: str, path: Path, where: Where | None) -> None:
    import urllib.error
    import urllib.request

    if not url.startswith(("http://", "https://")):
        raise ProjectError(
            f"source `{spec.name}` has a url that is neither http nor https",
            where=where,
        )
    hasher = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(url, timeout=60) as response,
            tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file,
        ):
            while block := response.read(1 << 20):
                hasher.update(block)
                file.write(block)
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise BuildError(f"{url} cannot be downloaded: {error}", where=where) from error
    if hasher.hexdigest() != str(spec.sha256).lower():
        Path(file.name).unlink()
        raise BuildError(
            f"{url} gave other bytes than source `{spec.name}` declares: their sha256 is {hasher.hexdigest()}",
            where=where,
        )
    Path(file.name).replace(path)


def _nothing(spec: SourceSpec, pattern: str, root: Path, where: Where | None) -> BuildError:
    what = "no file matches" if glob.has_magic(pattern) else "there is no file"
    shown = pattern if pattern.startswith(PACKAGE) else f"project/{pattern}"
    return BuildError(
        f"source `{spec.name}` is empty: {what} {shown}",
        where=where,
        hint=did_you_mean(pattern, _neighbours(pattern, root)),
    )


def _neighbours(pattern: str, root: Path) -> Iterator[str]:
    folder = root / "project" / Path(pattern).parent
    if not pattern.startswith(PACKAGE) and folder.is_dir():
        yield from (str(Path(pattern).parent / entry.name) for entry in sorted(folder.iterdir()) if entry.is_file())


def _stat(path: Path) -> os.stat_result:
    return _reading(path, os.stat)


def _reading(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except OSError as error:
        raise BuildError(f"{path.name} cannot be read: {error.strerror or error}") from error


def _read_cache(cache: Path) -> dict[str, list[object]]:
    """What is remembered; nothing where the file is missing or damaged, since everything in it can be found again."""
    try:
        value = json.loads(cache.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_cache(cache: Path, entries: dict[str, list[object]]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=cache.parent, delete=False, encoding="utf-8") as file:
        json.dump(entries, file)
    Path(file.name).replace(cache)
