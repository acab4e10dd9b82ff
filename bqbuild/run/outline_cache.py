"""Outlines kept between commands, in `.bqbuild/.outline/`: one for each way of asking (target, --vars).

An outline counts only while everything that it was made from is the same: the project's files and folders, the
environment variables that were read, bqbuild's own code, and the libraries that parse. It is signed with a key that is
not in the project. It is not kept where a secret would show in it. Whatever is wrong with it, the project is read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from bqbuild import __file__ as own_file
from bqbuild.config.layout import find_project
from bqbuild.config.secrets import Secrets
from bqbuild.core.hashing import digest
from bqbuild.run.findings_cache import FindingsCache
from bqbuild.run.fingerprint import CODE, Before, Prints, Unwatchable, look_before, renewed_prints, take_prints
from bqbuild.run.local_key import local_key, read_signed, signed, write_signed
from bqbuild.run.outline import OutlineView, outline_of
from bqbuild.run.specmemory import NoMemoryError

if TYPE_CHECKING:
    from bqbuild.run.session import Session

FOLDER = ".bqbuild/.outline"
FINDINGS = "findings"
FORMAT = 1
KEPT = 8
"""Outlines of a project that stay; those that were used longest ago go."""

OFF = "BQBUILD_NO_CACHE"
"""An environment variable: where it is set, projects are always read, and nothing of them is remembered."""

LIBRARIES = (
    *("sqlglot", "sqlglotc", "jinja2", "markupsafe", "pydantic", "pydantic_core"),
    *("yaml", "orjson", "xxhash", "networkx"),
)
"""What parsing depends on: looked at without being imported."""

ALWAYS_READ = ("HOME",)
"""Environment variables that count though no file of the project names them."""


class Environ(Mapping[str, str]):
    """The environment of the process, which notes who is asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.asked: set[str] = set(ALWAYS_READ)

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class OutlineCache:
    """The outline of one project for one way of asking; made before the project is read."""

    def __init__(self, root: Path, target: str | None, variables: str | None) -> None:
        self.root = root
        asked = {"root": str(root), "target": target or "", "variables": variables or ""}
        self._path = root / FOLDER / f"{digest(asked)}.json"
        self._asked = asked
        self._key = None if os.environ.get(OFF) else local_key()

    def read(self, sample: int | None = None) -> OutlineView | None:
        """The view of an outline that still counts."""
        if self._key is None:
            return None
        try:
            document = read_signed(self._path, self._key)
            if document is None or not self._is_ours(self._key, document):
                return None
            prints = renewed_prints(self.root, document["files"])
            if prints is None:
                return None
            if prints is not document["files"]:
                self._write(self._key, {**document, "files": prints})
            secrets, digests = _secrets(document["environ"]), _digests(prints)
            return OutlineView(self.root, document["outline"], secrets=secrets, digests=digests, sample=sample)
        except (OSError, Unwatchable):
            return None

    def begin(self) -> Before | None:
        """What the project looks like before it is read; None where nothing will be remembered."""
        if self._key is None:
            return None
        try:
            return look_before(self.root)
        except (OSError, Unwatchable):
            return None

    def remember(self, session: Session, environ: Environ, before: Before) -> None:
        """Keep the outline of a project that was read with `environ`, where nothing changed since `before`."""
        if self._key is None:
            return
        try:
            prints = take_prints(self.root, before, session.project.files)
            if prints is None:
                return
            document = self._document(self._key, session, environ, prints)
            text = orjson.dumps(document).decode()
            if session.project.secrets.redact(text) == text:
                self._write(self._key, document)
        except (OSError, Unwatchable, NoMemoryError, TypeError):  # orjson refuses what UTF-8 cannot hold
            return

    def _document(self, key: bytes, session: Session, environ: Environ, prints: Prints) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "asked": self._asked,
            "program": program(),
            "environ": {name: [_keyed(key, name), _is_secret(session, name)] for name in sorted(environ.asked)},
            "files": prints,
            "outline": outline_of(session),
        }

    def _is_ours(self, key: bytes, document: Mapping[str, Any]) -> bool:
        return (
            document["format"] == FORMAT
            and document["asked"] == self._asked
            and document["program"] == program()
            and all(_keyed(key, name) == value for name, (value, _) in document["environ"].items())
        )

    def _write(self, key: bytes, document: Mapping[str, Any]) -> None:
        write_signed(self._path, key, document)
        old = sorted(self._path.parent.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in old[KEPT:]:
            path.unlink(missing_ok=True)


def read_outline(
    project_dir: Path | None, *, target: str | None, variables: str | None, sample: int | None = None
) -> OutlineView | None:
    """What is remembered of the project, where that still counts; None where it must be read.

    `variables` is what --vars was given, as it was written. Raises UsageError where there is no project.
    """
    return _cache(project_dir, target, variables).read(sample)


def open_and_remember(
    project_dir: Path | None,
    *,
    target: str | None,
    variables: str | None,
    values: Mapping[str, Any],
    sample: int | None = None,
) -> Session:
    """Read the project, and remember its outline when the session is closed. `values` are those of --vars.

    Raises as `open_session` does.
    """
    from bqbuild.run.session import open_session

    cache = _cache(project_dir, target, variables)
    environ = Environ(os.environ)
    before = cache.begin()
    analysed = FindingsCache(cache.root / FOLDER / FINDINGS, None if os.environ.get(OFF) else local_key(), program())
    found = analysed.read()
    session = open_session(cache.root, target=target, variables=values, sample=sample, environ=environ, findings=found)
    session.on_close.append(lambda: analysed.keep(found, session.project.secrets, program()))
    if before is not None:
        known = cache.read()
        if known is not None and known.digests == session.project.files:
            session.read_before.update(known.read_before())
        session.on_close.append(lambda: cache.remember(session, environ, before))
    return session


def program() -> list[Any]:
    """What reads projects: bqbuild's own code, the libraries below it, and Python, by the stats of their files."""
    folder = Path(own_file).parent
    own = []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".py"):
                own.append([os.path.relpath(f"{parent}/{name}", folder), *_file(f"{parent}/{name}")])
    found = (find_spec(name) for name in LIBRARIES)
    libraries = [[spec.name, *_file(spec.origin)] for spec in found if spec is not None and spec.origin]
    return [sys.version, digest(own), libraries]


def _cache(project_dir: Path | None, target: str | None, variables: str | None) -> OutlineCache:
    return OutlineCache((project_dir or find_project(Path.cwd())).resolve(), target, variables)


def _file(path: str) -> list[int]:
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _keyed(key: bytes, name: str) -> str | None:
    """A value of the environment as it may be written down: whoever has the file but not the key learns nothing."""
    value = os.environ.get(name)
    return None if value is None else signed(key, value.encode("utf-8", "surrogateescape"))


def _is_secret(session: Session, name: str) -> bool:
    value = os.environ.get(name, "")
    return session.project.secrets.redact(value) != value


def _secrets(environ: Mapping[str, Any]) -> Secrets:
    secrets = Secrets()
    for name, (_, is_secret) in environ.items():
        if is_secret:
            secrets.add(os.environ.get(name, ""))
    return secrets


def _digests(prints: Prints) -> dict[str, Any]:
    """The files that were read to parse the project."""
    return {name: found for name, (_, found) in prints.items() if found is not None and not name.endswith(CODE)}
