"""Garbage collection of a folder store: what nobody can reach is found, shown, and on request removed.

roots      what environments point to and pointed to after their last runs, pins, and what living processes use
reachable  the tables of a trace, the checkpoints that a table names
candidates are found without stopping anybody. Then, holding the gate, the roots are read again and what is still not
           reachable is moved to `trash`: traces first, so that no trace is left without its tables. Then it is deleted.
A collection that is killed leaves a store that is sound: what lies in `trash` goes with the next one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from bqbuild.core.hashing import Digest
from bqbuild.core.records import Trace
from bqbuild.store.base import DamagedError, Garbage, Pile
from bqbuild.store.callgarbage import CallGarbage
from bqbuild.store.content import ContentFolders, remove_tree
from bqbuild.store.disk import disk_errors, make_folder, try_lock
from bqbuild.store.environments import LocalEnvironments
from bqbuild.store.health import is_digest, named_folders
from bqbuild.store.inuse import gate, living, marked
from bqbuild.store.pins import LocalPins
from bqbuild.store.runs import LocalRuns
from bqbuild.store.tables import LocalTables
from bqbuild.store.traces import LocalTraces

UNFINISHED_SECONDS = 7 * 24 * 3600.0
"""How long the scratch folder of a build is kept after it was last written to: a training goes on from it."""

UNPUBLISHED_SECONDS = 24 * 3600.0
"""How long a training is kept that no run has published yet: its run was killed, and the next one finds it."""

MOVED = ("traces", "definitions", "runs", "tables", "checkpoints", "unfinished work", "damaged files", "leftovers")
"""The sorts of things that are moved to the trash, in this order."""


@dataclass(slots=True)
class _Found:
    """What lies in the store, by sort: the paths that make up each thing, and its bytes."""

    kept: dict[str, list[int]] = field(default_factory=dict)
    dropped: dict[str, list[tuple[str, list[Path], int]]] = field(default_factory=dict)

    def put(self, sort: str, name: str, paths: list[Path], *, keep: bool) -> None:
        """Sort a thing in."""
        size = sum(bytes_of(path) for path in paths)
        if keep:
            self.kept.setdefault(sort, []).append(size)
        else:
            self.dropped.setdefault(sort, []).append((name, paths, size))


@dataclass(frozen=True, slots=True)
class LocalGarbage:
    """Collects the garbage of one folder store. `own` is the session folder of this process."""

    root: Path
    own: Path
    tables: ContentFolders
    folders: ContentFolders
    reader: LocalTables
    traces: LocalTraces
    environments: LocalEnvironments
    runs: LocalRuns
    pins: LocalPins
    calls: CallGarbage

    def collect(self, *, keep_runs: int, delete: bool = False, calls: bool = False) -> Garbage:
        """What can go and what stays; with `delete` it goes. `calls` takes calls that no kept build used as well.

        Raises StoreError; DamagedError where a file that says what is reachable cannot be trusted: nothing is deleted.
        """
        with disk_errors(self.root):
            traces = self._traces()
            reached = self._reach(self._roots(keep_runs), traces)
            found = self._survey(reached, traces, keep_runs)
            used = self._used_calls(reached, traces) if calls else None
            since = max(self._published().values(), default=0.0)
            lost = self.calls.survey(used, since) if used is not None else None
            if delete:
                with gate(self._locks, exclusive=True):
                    reached = self._reach(self._roots(keep_runs), traces)
                    self._move(found, reached)
                    if used is not None and lost is not None and lost.count:
                        # a run may have begun and ended since: what it used stays
                        late = self._used_calls(reached, self._traces()) or set()
                        self.calls.delete(used | late, since, self._others())
                for trash in self._trashes():
                    remove_tree(trash)
            return Garbage(
                drop=tuple(_pile(sort, [size for _, _, size in found.dropped.get(sort, ())]) for sort in MOVED),
                keep=tuple(_pile(sort, found.kept.get(sort, [])) for sort in MOVED if sort in found.kept),
                calls=lost,
                calls_kept=self.calls.total(),
                pins=tuple(sorted(self.pins.read())),
            )

    @property
    def _locks(self) -> Path:
        return self.root / "leases"

    @property
    def _scratch(self) -> Path:
        return self.root / "scratch"

    def _trashes(self) -> list[Path]:
        return sorted((self.root / "trash").glob("*"))

    def _others(self) -> list[Path]:
        return living(self._scratch, self._locks, self.own)

    def _traces(self) -> dict[Digest, Trace | None]:
        """All traces; None for one that is damaged, which nothing is reached through."""
        found: dict[Digest, Trace | None] = {}
        for key in self.traces.recorded():
            try:
                found[key] = self.traces.read(key)
            except (ValueError, KeyError):
                found[key] = None
        return found

    def _roots(self, keep_runs: int) -> set[str]:
        """Raises DamagedError where an environment, the history or the pins cannot be read."""
        pointers = [self.environments.read(name) for name in self.environments.names()]
        for name in self.runs.environments():
            pointers += [dict(run.pointers) for run in self.runs.list(name, keep_runs)] if keep_runs else []
        roots: set[str] = {pointer.trace for each in pointers for pointer in each.values()}
        roots |= {digest for each in pointers for pointer in each.values() for digest in pointer.tables.values()}
        roots |= {digest for kept in self.pins.read().values() for digest in kept}
        return roots.union(*(marked(folder) for folder in self._others()))

    def _reach(self, roots: Iterable[str], traces: dict[Digest, Trace | None]) -> set[str]:
        """The roots and all that they lead to, in one set: digests of traces, tables and folders do not collide."""
        published = self._published()
        reached = set(roots)
        reached |= {key for key, trace in traces.items() if trace and self._is_unpublished(trace, published)}
        for key in list(reached):
            trace = traces[Digest(key)] if key in traces else self._late_trace(Digest(key))
            if trace is not None:
                reached |= set(trace.outputs.values())
                if trace.kind == "train" and not self.tables.path(trace.outputs[""]).is_dir():
                    # nobody can tell any more which checkpoint was its: none goes
                    reached |= set(self.folders.digests())
        for digest in list(reached):
            if self.tables.path(Digest(digest)).is_dir():
                table = self.reader.find(Digest(digest))
                if table is None:
                    raise DamagedError(
                        f"the table {self.tables.path(Digest(digest))} is damaged: what it leads to cannot be told, so "
                        "nothing is deleted",
                        hint="`bqbuild fsck` sets it aside, `bqbuild run` builds it again",
                    )
                reached |= named_folders(self.reader, table)
        return reached

    def _late_trace(self, key: Digest) -> Trace | None:
        """A trace that was recorded after the traces were listed."""
        try:
            return self.traces.read(key)
        except (ValueError, KeyError):
            return None

    def _published(self) -> dict[str, float]:
        """When each environment's pointers moved last."""
        return {name: self.environments.path(name).stat().st_mtime for name in self.environments.names()}

    def _is_unpublished(self, trace: Trace, published: dict[str, float]) -> bool:
        """Whether it is a training of a run that ended before it could say so."""
        if trace.kind != "train":
            return False
        written = self.traces.path(trace.key).stat().st_mtime
        return time.time() - written < UNPUBLISHED_SECONDS and all(written > moved for moved in published.values())

    def _survey(self, reached: set[str], traces: dict[Digest, Trace | None], keep_runs: int) -> _Found:
        found = _Found()
        for key in traces:
            path = self.traces.path(key)
            found.put("traces", key, [path, self.traces.calls_path(key)], keep=key in reached)
        recipes = {trace.recipe for key, trace in traces.items() if trace and key in reached}
        for path in (self.root / "definitions").glob("??/*.json"):
            found.put("definitions", path.stem, [path], keep=path.stem in recipes)
        for name in self.runs.environments():
            paths = sorted(self.runs.folder(name).glob("*.json"), reverse=True)
            for number, path in enumerate(paths):
                found.put("runs", path.stem, [path], keep=number < keep_runs)
        for sort, folders in (("tables", self.tables), ("checkpoints", self.folders)):
            for digest in folders.digests():
                found.put(sort, digest, [folders.path(digest)], keep=digest in reached)
        for path in self._scratch.iterdir():
            if is_digest(path.name):  # a build's; others are of living processes, or where DuckDB spills to
                done = traces.get(Digest(path.name))
                is_resumable = not (done and done.complete) and time.time() - _written(path) < UNFINISHED_SECONDS
                found.put("unfinished work", path.name, [path], keep=path.name in reached or is_resumable)
        for path in (self.root / "damaged").glob("*"):
            # calls that could not be read may still be got out of the file by hand
            found.put("damaged files", path.name, [path], keep=".jsonl" in path.name)
        for path in [*self._dead_leases(), *self._trashes()]:
            found.put("leftovers", path.name, [path], keep=False)
        return found

    def _dead_leases(self) -> Iterator[Path]:
        """Lock files of leases whose process was killed."""
        for path in self._locks.glob("lease-*.lock"):
            try:
                with path.open("rb") as file:
                    if try_lock(file.fileno()):
                        yield path
            except FileNotFoundError:
                continue

    def _move(self, found: _Found, reached: set[str]) -> None:
        """Move what is still not reachable to the trash; the gate is held."""
        trash = self.root / "trash" / uuid4().hex
        make_folder(trash)
        for sort in MOVED:
            for name, paths, _ in found.dropped.get(sort, ()):
                if name in reached:
                    continue
                for path in paths:
                    if path.name.startswith("lease-"):
                        _remove_free(path)
                    elif path.exists():
                        path.rename(trash / f"{uuid4().hex[:8]}-{path.name}")

    def _used_calls(self, reached: set[str], traces: dict[Digest, Trace | None]) -> set[bytes] | None:
        """The keys of the calls that kept builds used. Raises StoreError where one does not tell."""
        kept = [trace for key, trace in traces.items() if trace and key in reached]
        return self.calls.used(kept, self.traces)


def bytes_of(path: Path) -> int:
    """The bytes of a file, or of all files below a folder; 0 for what is not there."""
    try:
        if path.is_dir():
            return sum(bytes_of(each) for each in path.iterdir())
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _written(path: Path) -> float:
    """When a folder, or anything below it, was last written."""
    return max([path.stat().st_mtime, *(each.stat().st_mtime for each in path.rglob("*"))])


def _remove_free(path: Path) -> None:
    """Remove the lock file of a lease, holding it: whoever takes it at this moment finds that it is gone, and makes
    another."""
    try:
        with path.open("rb") as file:
            if try_lock(file.fileno()):
                path.unlink(missing_ok=True)
    except FileNotFoundError:
        return


def _pile(sort: str, sizes: list[int]) -> Pile:
    return Pile(sort, len(sizes), sum(sizes))
