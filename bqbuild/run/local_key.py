"""A key of this user on this machine, kept outside of every project.

What bqbuild remembers inside a project is signed with it, so that a project that somebody else made cannot bring
memories of its own; and values that must not be written down are recognised by their keyed digest.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from bqbuild.llm.weights import cache_folder

NAME = "local.key"
BYTES = 32


def local_key() -> bytes | None:
    """The key, made where there is none; None where none can be kept, or what is there may be another user's."""
    path = cache_folder() / NAME
    try:
        return _read(path) or _make(path)
    except (OSError, RuntimeError):  # no home
        return None


def signed(key: bytes, data: bytes) -> str:
    """The signature of `data`."""
    return blake2b(data, key=key, digest_size=32).hexdigest()


def read_signed(path: Path, key: bytes) -> dict[str, Any] | None:
    """The document of a file that `write_signed` wrote with this key; None where there is none. Raises OSError."""
    try:
        signature, _, body = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if signature.decode("ascii", "replace") != signed(key, body):
        return None
    document: dict[str, Any] = orjson.loads(body)
    return document


def write_signed(path: Path, key: bytes, document: Mapping[str, Any]) -> None:
    """Write a document whole or not at all; two processes that write at a time both write what is true. Raises OSError,
    and TypeError for what UTF-8 cannot hold."""
    body = orjson.dumps(document)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
        file.write(signed(key, body).encode() + b"\n" + body)
    os.replace(file.name, path)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            key = file.read(BYTES + 1)
    except FileNotFoundError:
        return None
    if stat.st_uid != os.geteuid() or stat.st_mode & 0o077 or len(key) != BYTES:
        raise PermissionError(path)
    return key


def _make(path: Path) -> bytes | None:
    """Of two processes that make one at a time, one is first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent) as file:
        file.write(os.urandom(BYTES))
        file.flush()
        with suppress(FileExistsError):
            os.link(file.name, path)
    return _read(path)
