"""The marker of a store, `<store>/store.json`: which layout it has, so that no release misreads another's.

It stands above the layouts' own folders (`v1/`), so that a release that makes another one is seen by this one: a store
that looks empty would be paid for again.
"""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import orjson

from bqbuild import __version__
from bqbuild.core.errors import StoreError
from bqbuild.store.disk import disk_errors

NAME = "store.json"

LAYOUT = 1
"""The layout that this release writes: what lies in `v1/`. A store without a marker has it too: the first releases
wrote none."""


def check_marker(store: Path) -> None:
    """Look at the marker, and write it where there is none. Raises StoreError for a store of a later release."""
    path = store / NAME
    with disk_errors(path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            _write(path)
            return
    layout = _layout(data)
    if layout is None:
        raise StoreError(
            f"{path} is damaged: it does not say which layout the store has",
            hint=f'where no later release of bqbuild has used this store, write {{"layout": {LAYOUT}}} into it',
        )
    if layout > LAYOUT:
        raise StoreError(
            f"{store} was written by a later release of bqbuild: its layout is {layout}, this release "
            f"({__version__}) reads up to {LAYOUT}",
            hint="upgrade bqbuild (pip install --upgrade bqbuild), or name another `store:` in project/profiles.yml",
        )


def _layout(data: bytes) -> int | None:
    """The number that a marker gives; None where it gives none."""
    try:
        document = orjson.loads(data)
    except ValueError:
        return None
    layout = document.get("layout") if isinstance(document, dict) else None
    return layout if isinstance(layout, int) and not isinstance(layout, bool) and layout > 0 else None


def _write(path: Path) -> None:
    """Write the marker whole or not at all; who else does so at this moment writes the same layout."""
    fresh = path.with_name(f".{NAME}.{uuid4().hex}")
    try:
        fresh.write_bytes(orjson.dumps({"layout": LAYOUT, "bqbuild": __version__}, option=orjson.OPT_APPEND_NEWLINE))
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
