"""Where tables, traces, calls and environments live."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from bqbuild.core.errors import StoreError

if TYPE_CHECKING:
    from bqbuild.store.base import Store

STORES = {"file": "bqbuild.store.local:open_local"}
"""Stores by the scheme of their path: the function that opens one, imported when it is asked for."""


def open_store(path: str) -> Store:
    """Open the store at `path`: a folder, or `file://` and a folder. Raises StoreError."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        scheme, rest = "file", path
    if scheme not in STORES:
        raise StoreError(
            f"cannot open the store {path}: this release opens folders only",
            hint="set `store:` in project/profiles.yml to a folder, on a shared disk if machines share it",
        )
    module, name = STORES[scheme].split(":")
    return cast("Store", getattr(import_module(module), name)(rest))
