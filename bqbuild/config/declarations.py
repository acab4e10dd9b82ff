"""Finds the nodes: `models/**/*.yml` (`sources:` and `models:`) and `models/**/*.sql`, each as a typed declaration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from bqbuild.config.defaults import Declaration, FixedPlace, FolderDefaults
from bqbuild.config.files import ProjectFiles
from bqbuild.config.jinja import Renderer
from bqbuild.config.mistakes import Mistakes
from bqbuild.config.rendered import render_values
from bqbuild.config.specs import SPECS, CommonSpec
from bqbuild.config.sqltext import SqlRenderer, SqlText
from bqbuild.config.validate import validate
from bqbuild.config.yamlfile import Document
from bqbuild.core.errors import ProjectError, Where, did_you_mean

_SECTIONS = ("sources", "models")
_UNRENDERED = {"sql": ("sql",), "mix": ("text",)}
"""Templates that are rendered elsewhere: by the SQL's own rules, or once a row."""


@dataclass(frozen=True, slots=True)
class Declared:
    """One node as it was declared: its typed spec, where each part stands, and its SQL where it has any."""

    spec: CommonSpec
    kind: str
    where: Where
    path: str
    folders: tuple[str, ...]
    declaration: Declaration
    places: Mapping[str, Where]
    sql: SqlText | None = None
    patch: str = ""
    """The YAML file that describes a model whose SQL stands in a file of its own."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One item of a YAML file."""

    value: dict[str, Any]
    document: Document
    path: tuple[str | int, ...]

    @property
    def where(self) -> Where:
        return self.document.where((*self.path, "name"))


@dataclass(frozen=True, slots=True)
class Readers:
    """What reading declarations needs."""

    files: ProjectFiles
    defaults: FolderDefaults
    renderer: Renderer
    sql: SqlRenderer
    mistakes: Mistakes


def read_declarations(readers: Readers) -> tuple[list[Declared], frozenset[str]]:
    """Every node of the project, in the order of the files, and the names of those that are broken.

    Names are unique. Mistakes are noted.
    """
    entries = _entries(readers)
    texts = readers.files.texts("models", ".sql")
    beside = {PurePosixPath(path).stem for path in texts}
    found: list[Declared | None] = []
    properties: dict[str, _Entry] = {}
    for entry in entries:
        kind = _kind(entry, beside, readers.mistakes)
        name = entry.value.get("name")
        if kind == "sql" and name in beside and "sql" not in entry.value:
            if name in properties:
                _duplicate(str(name), entry.where, properties[str(name)].where, readers.mistakes)
            properties[str(name)] = entry
        elif kind is not None:
            found.append(_from_yaml(entry, kind, readers))
    for path, text in texts.items():
        found.append(_from_sql(path, text, properties.get(PurePosixPath(path).stem), readers))
    good = [each for each in found if each is not None]
    named = {str(entry.value.get("name")) for entry in entries} | beside
    return _unique(good, readers.mistakes), frozenset(named - {each.spec.name for each in good})


def _entries(readers: Readers) -> list[_Entry]:
    found: list[_Entry] = []
    for path in readers.files.list("models", ".yml", ".yaml"):
        document = readers.files.yaml(path)
        if document is None or document.value is None:
            continue
        if not isinstance(document.value, dict):
            readers.mistakes.add("must have `sources:` or `models:`", Where(path, 1))
            continue
        for section, items in document.value.items():
            if section not in _SECTIONS:
                hint = did_you_mean(section, _SECTIONS) or "a file of models has `sources:` and `models:`"
                readers.mistakes.add(f"unknown key '{section}'", document.where((section,)), hint)
            elif isinstance(items, list):
                found += _items(document, section, items, readers.mistakes)
            elif items is not None:
                readers.mistakes.add(f"`{section}` must be a list", document.value_where((section,)))
    return found


def _items(document: Document, section: str, items: Sequence[Any], mistakes: Mistakes) -> list[_Entry]:
    found = []
    for number, item in enumerate(items):
        if isinstance(item, dict):
            found.append(_Entry(item, document, (section, number)))
        else:
            mistakes.add(f"an item of `{section}` must be a mapping", document.value_where((section, number)))
    return found


def _kind(entry: _Entry, beside: set[str], mistakes: Mistakes) -> str | None:
    """The kind of an entry, or None with the mistake noted."""
    is_source = entry.path[0] == "sources"
    is_sql = "sql" in entry.value or entry.value.get("name") in beside
    kind = entry.value.get("kind", "source" if is_source else "sql" if is_sql else None)
    if is_source == (kind == "source") and kind in SPECS:
        return str(kind)
    where = entry.document.value_where((*entry.path, "kind"))
    kinds = [name for name in SPECS if name != "source"]
    listed = f"kinds: {', '.join(kinds)}"
    if is_source:
        mistakes.add(f"a source has no kind '{kind}'", where, "models stand under `models:`")
    elif kind == "source":
        mistakes.add("a source stands under `sources:`", where)
    elif kind is None:
        mistakes.add("missing key 'kind'", entry.where, f"{listed}; the SQL of kind sql is models/…/<name>.sql")
    else:
        mistakes.add(f"unknown kind '{kind}'", where, did_you_mean(str(kind), kinds) or listed)
    return None


def _from_yaml(entry: _Entry, kind: str, readers: Readers) -> Declared | None:
    path = entry.document.shown_as
    declaration = Declaration()
    if kind != "source":
        readers.defaults.declare(_folders(path), kind, declaration)
    declaration.add(_rendered(entry, kind, readers), entry.document, entry.path)
    sql = None
    if isinstance(entry.value.get("sql"), str) and kind == "sql":
        sql = _render_sql(entry.value["sql"], entry.document.text_where((*entry.path, "sql")), readers)
        if sql is not None:
            declaration.add(sql.config, FixedPlace(entry.document.where((*entry.path, "sql"))))
    places = entry.document.places(entry.path)
    return _declared(declaration, kind, (entry.where, path, places, sql), readers)


def _from_sql(path: str, text: str, entry: _Entry | None, readers: Readers) -> Declared | None:
    where = Where(path, 1)
    sql = _render_sql(text, where, readers)
    declaration = Declaration()
    readers.defaults.declare(_folders(path), "sql", declaration)
    places: dict[str, Where] = {}
    if entry is not None:
        places = entry.document.places(entry.path)
        declaration.add(_rendered(entry, "sql", readers), entry.document, entry.path)
    declaration.add({"name": PurePosixPath(path).stem, "kind": "sql", "sql": text}, FixedPlace(where))
    if sql is not None:
        call = FixedPlace(_config_place(path, text))
        declaration.add(sql.config, call)
        places.update(dict.fromkeys(sql.config, call.place))
    places["sql"] = where
    declared = _declared(declaration, "sql", (where, path, places, sql), readers)
    if declared is None or sql is None:
        return None
    return declared if entry is None else replace(declared, patch=entry.document.shown_as)


def _declared(
    declaration: Declaration,
    kind: str,
    about: tuple[Where, str, Mapping[str, Where], SqlText | None],
    readers: Readers,
) -> Declared | None:
    where, path, places, sql = about
    spec = validate(SPECS[kind], declaration.value, declaration, readers.mistakes)
    if spec is None:
        return None
    inherited = {key: declaration.where((key,)) for key in declaration.value if key not in places}
    return Declared(spec, kind, where, path, _folders(path), declaration, {**inherited, **places}, sql)


def _rendered(entry: _Entry, kind: str, readers: Readers) -> dict[str, Any]:
    skip = _UNRENDERED.get(kind, ())
    value = render_values(entry.value, entry.document, readers.renderer, readers.mistakes, path=entry.path, skip=skip)
    return {**value, "kind": kind}


def _render_sql(text: str, where: Where, readers: Readers) -> SqlText | None:
    try:
        return readers.sql.render(text, where)
    except ProjectError as error:
        readers.mistakes.note(error)
        return None


def _config_place(path: str, text: str) -> Where:
    """Where `config(` stands in a SQL file."""
    found = text.find("config(")
    return Where(path, text.count("\n", 0, max(found, 0)) + 1)


def _folders(path: str) -> tuple[str, ...]:
    return PurePosixPath(path).parts[1:-1]


def _unique(declared: list[Declared], mistakes: Mistakes) -> list[Declared]:
    """Without the later one of two nodes of one name; DuckDB's names do not tell upper from lower case."""
    first: dict[str, Declared] = {}
    for each in declared:
        other = first.setdefault(each.spec.name.lower(), each)
        if other is not each:
            _duplicate(each.spec.name, each.where, other.where, mistakes)
    return list(first.values())


def _duplicate(name: str, where: Where, other: Where, mistakes: Mistakes) -> None:
    mistakes.add(f"duplicate name '{name}'", where, f"{other} has it already")
