"""Looks at every file of a folder store: is it what was written? What can be made again at no cost is set aside.

tables, checkpoints   every file against its checksum; set aside, so that the next run makes them again
traces                checksum and key; set aside, their nodes are built again from recorded calls
definitions           checksum and name; set aside
epochs                checksums; what is known of one goes on to count
environments, runs    checksum and name; an environment goes back to where its last recorded run left it
calls                 see callhealth.py; nothing is set aside unless the user pays for it
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from bqbuild.core.hashing import Digest
from bqbuild.core.records import NodeName, Table, Trace
from bqbuild.store.base import Damage, DamagedError, Pointer
from bqbuild.store.callhealth import CallHealth
from bqbuild.store.content import ContentFolders
from bqbuild.store.definitions import LocalDefinitions
from bqbuild.store.disk import disk_errors, make_folder
from bqbuild.store.environments import LocalEnvironments
from bqbuild.store.epochs import LocalEpochs
from bqbuild.store.runs import LocalRuns, read_record
from bqbuild.store.tables import LocalTables
from bqbuild.store.traces import LocalTraces

CHECKPOINT = "checkpoint"
"""The column that names an adopted folder, wherever it is handed on to."""

FREE = "set aside; the next run builds it again from recorded calls"
TRAINED = "set aside; only training again makes it anew, which `bqbuild run --repay` does"


@dataclass(slots=True)
class _Known:
    """What the traces tell: who made a table or a folder, and what a training took."""

    makers: dict[Digest, set[NodeName]] = field(default_factory=dict)
    trainings: dict[Digest, float | None] = field(default_factory=dict)
    traces: dict[Digest, Trace] = field(default_factory=dict)
    told: set[Digest] = field(default_factory=set)

    def add(self, trace: Trace, folders: Iterable[Digest]) -> None:
        """Take in what a trace made; `folders` are the checkpoints that its table names."""
        self.traces[trace.key] = trace
        made = [*trace.outputs.values(), *(folders if trace.kind == "train" else ())]
        for digest in made:
            self.makers.setdefault(digest, set()).add(trace.node)
            if trace.kind == "train":
                self.trainings[digest] = trace.stats.get("seconds")

    def models(self, digest: Digest) -> tuple[str, ...]:
        """The models that made this."""
        return tuple(sorted(self.makers.get(digest, ())))


@dataclass(frozen=True, slots=True)
class LocalHealth:
    """Checks the parts of one folder store."""

    tables: ContentFolders
    folders: ContentFolders
    reader: LocalTables
    traces: LocalTraces
    environments: LocalEnvironments
    runs: LocalRuns
    definitions: LocalDefinitions
    epochs: LocalEpochs
    calls: CallHealth
    damaged: Path

    def check(self, *, repay: bool = False) -> Iterator[Damage]:
        """Every file that is not what was written, as it is found. With `repay` damaged calls are set aside as well.

        Raises StoreError where a file cannot be read at all.
        """
        with disk_errors(self.damaged.parent):
            known = _Known()
            yield from self._check_traces(known)
            yield from self._check_content(self.tables, "table", known)
            yield from self._check_content(self.folders, "checkpoint", known)
            yield from self._check_environments()
            yield from self._check_runs()
            yield from self._check_small()
            yield from self._check_pointers(known)
            yield from self.calls.check(repay=repay)

    def _check_traces(self, known: _Known) -> Iterator[Damage]:
        for key in self.traces.recorded():
            path = self.traces.path(key)
            try:
                trace = self.traces.read(key)
            except (ValueError, KeyError) as error:
                self._set_aside(path)
                known.told.add(key)
                yield Damage("trace", str(path), str(error), FREE)
                continue
            if self.traces.calls_path(key).exists() and self.traces.calls(key) is None:
                self._set_aside(self.traces.calls_path(key))
                yield Damage("trace", str(self.traces.calls_path(key)), "its checksum does not match", UNLISTED)
            if trace is not None:
                known.add(trace, self._checkpoints(trace) if trace.kind == "train" else ())

    def _checkpoints(self, trace: Trace) -> set[Digest]:
        """The folders that a training's table names, if it can be read; it is looked at as a table later."""
        digest = trace.outputs.get("")
        if digest is None or not self.tables.path(digest).is_dir() or self.tables.problem(digest):
            return set()
        table = self.reader.find(digest)
        return set() if table is None else named_folders(self.reader, table)

    def _check_content(self, folders: ContentFolders, what: str, known: _Known) -> Iterator[Damage]:
        for digest in folders.digests():
            problem = folders.problem(digest)
            if problem is None:
                continue
            folders.set_aside(digest)
            known.told.add(digest)
            is_trained = digest in known.trainings or what == "checkpoint"
            yield Damage(
                what,
                str(problem[0]),
                problem[1],
                TRAINED if is_trained else FREE,
                models=known.models(digest),
                seconds=known.trainings.get(digest),
            )

    def _check_environments(self) -> Iterator[Damage]:
        for name in self.environments.names():
            try:
                self.environments.read(name)
            except DamagedError as error:
                path = self.environments.path(name)
                self._set_aside(path)
                yield Damage("environment", str(path), _reason(error), self._put_back(name))

    def _put_back(self, environment: str) -> str:
        """Point the environment where its last run left it."""
        for path in sorted(self.runs.folder(environment).glob("*.json"), reverse=True):
            try:
                run = read_record(path)
            except ValueError:
                continue
            if run is not None:
                self.environments.move(environment, run.pointers)
                return f"put back to where the run of {run.time:%Y-%m-%d %H:%M} left it"
        return "set aside; the next run makes it again from what is in the store"

    def _check_runs(self) -> Iterator[Damage]:
        for path in self.runs.paths():
            try:
                read_record(path)
            except (ValueError, KeyError) as error:
                self._set_aside(path)
                yield Damage("run", str(path), str(error), "set aside; the history lacks this run")

    def _check_small(self) -> Iterator[Damage]:
        """What only explanations read, and what tells of answers that were asked for again."""
        for path, problem in self.definitions.damaged():
            self._set_aside(path)
            yield Damage("definition", str(path), problem, UNEXPLAINED)
        for path, problem in self.epochs.repair():
            yield Damage("epoch", str(path), problem, RENEWED)

    def _check_pointers(self, known: _Known) -> Iterator[Damage]:
        """What environments point to and is not there."""
        told = set(known.told)
        for environment in self.environments.names():
            for name, pointer in sorted(self.environments.read(environment).items()):
                for damage, digest in self._missing(name, pointer, known):
                    if digest not in told:
                        told.add(digest)
                        yield damage

    def _missing(self, name: NodeName, pointer: Pointer, known: _Known) -> Iterator[tuple[Damage, Digest]]:
        if pointer.trace not in known.traces:
            yield (
                Damage("trace", str(self.traces.path(pointer.trace)), "it is missing", FREE_MISSING, (name,)),
                pointer.trace,
            )
        for digest in pointer.tables.values():
            path = self.tables.path(digest)
            if not path.is_dir():
                is_trained = digest in known.trainings
                action = TRAINED_MISSING if is_trained else FREE_MISSING
                seconds = known.trainings.get(digest)
                yield Damage("table", str(path), "it is missing", action, (name,), seconds=seconds), digest
                continue
            table = self.reader.find(digest)
            for folder in named_folders(self.reader, table) if table is not None else ():
                if not self.folders.path(folder).is_dir():
                    seconds = known.trainings.get(folder)
                    where = str(self.folders.path(folder))
                    models = known.models(folder) or (name,)
                    yield Damage("checkpoint", where, "it is missing", TRAINED_MISSING, models, seconds=seconds), folder

    def _set_aside(self, path: Path) -> None:
        make_folder(self.damaged)
        path.rename(self.damaged / f"{uuid4().hex[:8]}-{path.name}")


UNLISTED = "set aside; `gc --calls` deletes no call until its build is made again (`run --full-refresh`)"
UNEXPLAINED = "set aside; `plan` cannot say in detail what changed since then"
RENEWED = "builds from before it are looked at again, and nothing is paid"
FREE_MISSING = "the next run builds it again from recorded calls"
TRAINED_MISSING = "only training again makes it anew, which `bqbuild run --repay` does"


def named_folders(tables: LocalTables, table: Table) -> set[Digest]:
    """The adopted folders that a table names: those of its column `checkpoint`. Raises DamagedError."""
    types: Mapping[str, str] = {column.name: column.type for column in table.columns}
    if types.get(CHECKPOINT) != "varchar":
        return set()
    values = {value for batch in tables.batches(table, [CHECKPOINT]) for value in batch.column(0).to_pylist()}
    return {Digest(value) for value in values if value is not None and is_digest(value)}


def is_digest(text: str) -> bool:
    """Whether a text has the form of a digest."""
    return len(text) == 32 and all(letter in "0123456789abcdef" for letter in text)


def _reason(error: DamagedError) -> str:
    return error.message.partition(" is damaged: ")[2] or error.message
