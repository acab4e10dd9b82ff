"""Stable ids of rows: derived from what a row is, never from where it stands."""

from __future__ import annotations

from bqbuild.core.hashing import digest


def row_id(*parts: object) -> str:
    """The id of the row that `parts` name: 32 hexadecimal digits."""
    return str(digest(list(parts)))
