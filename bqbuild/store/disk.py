"""Files that survive: written whole, fsynced, renamed into place; errors of the disk as StoreErrors; locks."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import xxhash

from bqbuild.core.errors import StoreError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a file system says when nothing more fits."""

FORMAT = 1
"""Version of the small JSON files; a newer one is refused, never guessed at."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a StoreError about `path`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: Path) -> StoreError:
    """The StoreError that tells a user what an OSError at `path` means."""
    reason = error.strerror or str(error)
    if error.errno in FULL:
        return no_space(path, reason)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(f"no permission for {path}: {reason}", hint="check who owns the store and how it is mounted")
    return StoreError(f"cannot use {path}: {reason}", hint="check the disk; `store` in profiles.yml says where it is")


def no_space(path: Path, reason: str) -> StoreError:
    """What a user is told where nothing more can be written at `path`."""
    return StoreError(
        f"no space left to write {path}: {reason}",
        hint="free some space (or raise the quota) and run again; everything recorded so far is kept",
    )


def write_atomic(path: Path, data: bytes, scratch: Path) -> None:
    """Write a whole file by way of `scratch` (same disk): readers see the old one or the new one, even after a crash.

    Raises StoreError.
    """
    temporary = scratch / f"{path.name}.{uuid4().hex}"
    with disk_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            make_folder(path.parent)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, durably. Raises OSError."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        fsync(path.parent)


def fsync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checked_json(value: Mapping[str, Any]) -> bytes:
    """A small JSON document that carries its format and its own checksum."""
    body = orjson.dumps({"format": FORMAT, **value}, option=orjson.OPT_SORT_KEYS)
    checked = {"check": xxhash.xxh3_128_hexdigest(body), "body": orjson.Fragment(body)}
    return orjson.dumps(checked, option=orjson.OPT_APPEND_NEWLINE)


def read_checked(path: Path) -> dict[str, Any] | None:
    """What `checked_json` wrote, or None where there is no such file.

    Raises ValueError where the file is not what was written, StoreError where it cannot be read or is of a later
    release.
    """
    with disk_errors(path):
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        document = orjson.loads(data)
        body: dict[str, Any] = document["body"]
        check = document["check"]
    except (TypeError, KeyError) as error:
        raise ValueError("it is not a document of this store") from error
    if check != xxhash.xxh3_128_hexdigest(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)):
        raise ValueError("the checksum does not match")
    if body.get("format") != FORMAT:
        raise StoreError(f"{path} was written by a later release of bqbuild", hint="upgrade bqbuild to use this store")
    return body


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for a moment: for updates that take milliseconds, not for builds."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with disk_errors(path):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file if nobody holds it; it is held until the file is closed or the process dies."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
