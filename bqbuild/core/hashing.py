"""Digests of structure. One function for values, one for files; never of strings joined by hand.

`SCHEME` is part of every digest: a change of the canonical form is a change of scheme.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NewType

import xxhash

Digest = NewType("Digest", str)
"""32 lower-case hexadecimal digits: an xxh3-128."""

SCHEME = 1


def canonical(value: object) -> object:
    """`value` as plain JSON with every distinction kept: tuples are lists, sets are refused, 1 and 1.0 differ."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a digest needs string keys")
        return {key: canonical(value[key]) for key in sorted(value)}
    raise TypeError(f"no canonical form for {type(value).__name__}")


def canonical_json(value: object) -> str:
    """Canonical JSON: sorted keys, no spaces, UTF-8 kept."""
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> Digest:
    """xxh3-128 of the canonical JSON of `value` and of the scheme. Raises TypeError for what has no canonical form."""
    text = canonical_json([SCHEME, value])
    return Digest(xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass")))


def digest_bytes(data: bytes) -> Digest:
    """xxh3-128 of raw bytes."""
    return Digest(xxhash.xxh3_128_hexdigest(data))


def digest_file(path: Path) -> Digest:
    """xxh3-128 of a file's bytes, read in 1 MiB blocks."""
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return Digest(hasher.hexdigest())
