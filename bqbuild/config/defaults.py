"""Defaults by folder: `models:` in bqbuild.yml, as in dbt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bqbuild.config.mistakes import Mistakes
from bqbuild.config.specs import SPECS, ProjectSpec
from bqbuild.config.validate import Places, keys_of
from bqbuild.core.errors import Where, did_you_mean

_NEVER = {"name", "kind", "from", "sql", "path", "key", "url", "sha256"}
"""What only makes sense for one node."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class FixedPlace:
    """Everything stands in one place: a `config()` call, a whole file."""

    place: Where

    def where(self, path: Sequence[str | int]) -> Where:
        """The place."""
        return self.place

    def value_where(self, path: Sequence[str | int]) -> Where:
        """The place."""
        return self.place

    def text_where(self, path: Sequence[str | int]) -> Where:
        """The place."""
        return self.place


@dataclass(slots=True)
class Declaration:
    """A node's declaration, put together from several places; the later ones win, tags add up, `meta` is merged."""

    value: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, tuple[Places, Path]] = field(default_factory=dict)

    def add(self, value: Mapping[str, Any], places: Places, base: Path = ()) -> None:
        """Put `value`, which stands at `base`, on top."""
        for key, item in value.items():
            self.value[key] = self._merged(key, item)
            self.origins[key] = (places, (*base, key))

    def _merged(self, key: str, item: Any) -> Any:
        earlier = self.value.get(key)
        if key == "tags" and earlier is not None:
            before = _listed(earlier)
            return [*before, *(tag for tag in _listed(item) if tag not in before)]
        if key == "meta" and isinstance(item, dict) and isinstance(earlier, dict):
            return {**earlier, **item}
        return item

    def where(self, path: Sequence[str | int]) -> Where:
        """Where the entry at `path` was written."""
        places, base, rest = self._origin(path)
        return places.where((*base, *rest))

    def value_where(self, path: Sequence[str | int]) -> Where:
        """Where the value at `path` was written."""
        places, base, rest = self._origin(path)
        return places.value_where((*base, *rest))

    def text_where(self, path: Sequence[str | int]) -> Where:
        """Where the first line of the text at `path` was written."""
        places, base, rest = self._origin(path)
        return places.text_where((*base, *rest))

    def _origin(self, path: Sequence[str | int]) -> tuple[Places, Path, tuple[str | int, ...]]:
        known = self.origins.get(str(path[0])) if path else None
        if known is not None:
            return known[0], known[1], tuple(path[1:])
        places, base = next(reversed(self.origins.values()))
        return places, base[:-1], tuple(path)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


class FolderDefaults:
    """The defaults of every folder below `models/`."""

    def __init__(self, spec: ProjectSpec, places: Places, folders: set[str], mistakes: Mistakes) -> None:
        self._places = places
        self._folders = folders
        self._mistakes = mistakes
        self._by_folder: dict[str, list[tuple[str, Any, Path]]] = {}
        self._known = {key for spec in SPECS.values() for key in keys_of(spec)} - _NEVER
        own = spec.models.get(spec.name)
        if isinstance(own, dict) and spec.name not in folders:  # dbt's own spelling: the project's name on top
            self._read(own, "", ("models", spec.name))
        self._read({key: item for key, item in spec.models.items() if item is not own}, "", ("models",))

    def declare(self, folders: Sequence[str], kind: str, declaration: Declaration) -> None:
        """Put the defaults that hold for a node of `kind` in `models/<folders>` into its declaration."""
        keys = set(keys_of(SPECS[kind]))
        for depth in range(len(folders) + 1):
            for key, value, path in self._by_folder.get("/".join(folders[:depth]), ()):
                if key in keys:
                    declaration.add({key: value}, self._places, path[:-1])

    def _read(self, value: Mapping[str, Any], folder: str, path: Path) -> None:
        for key, item in value.items():
            name = key.removeprefix("+")
            inner = f"{folder}/{key}" if folder else key
            if (
                not key.startswith("+")
                and isinstance(item, dict)
                and (inner in self._folders or key not in self._known)
            ):
                if inner not in self._folders:
                    where = self._places.where((*path, key))
                    self._mistakes.warn(f"there is no folder 'models/{inner}': its defaults hold for nothing", where)
                self._read(item, inner, (*path, key))
            elif name in self._known:
                self._by_folder.setdefault(folder, []).append((name, item, (*path, key)))
            else:
                near = did_you_mean(name, self._known | self._folders)
                self._mistakes.add(f"unknown key '{key}'", self._places.where((*path, key)), near)
