"""A store in a folder.

<store>/store.json                    which layout this is: `v1`
<store>/v1/tables/ab/<digest>/        Parquet files and table.json
<store>/v1/folders/ab/<digest>/       checkpoints: files/ and folder.json
<store>/v1/traces/ab/<key>.json
<store>/v1/definitions/ab/<recipe>.json
<store>/v1/calls/                     journals of running processes, segments/ of finished ones; epochs/: what was asked
                                      for again
<store>/v1/batches/                   batches at a provider's Batch API whose answers are not all in yet
<store>/v1/environments/<project>/<environment>.json
<store>/v1/runs/<project>/<environment>/<time>-<id>.json
<store>/v1/leases/                    lock files
<store>/v1/scratch/                   unfinished work: <build key>/ of builds, session-<id>/ of one process
<store>/v1/pins.json                  what is kept whatever environments point to
<store>/v1/damaged/                   what failed its checksum, for a look
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from bqbuild.store.content import ContentFolders, remove_tree
from bqbuild.store.definitions import LocalDefinitions
from bqbuild.store.disk import disk_errors, make_folder, try_lock
from bqbuild.store.environments import LocalEnvironments
from bqbuild.store.epochs import LocalEpochs
from bqbuild.store.folders import LocalFolders
from bqbuild.store.inuse import InUse, gate
from bqbuild.store.leases import LocalLeases
from bqbuild.store.marker import check_marker
from bqbuild.store.pins import LocalPins
from bqbuild.store.runs import LocalRuns
from bqbuild.store.tables import LocalTables
from bqbuild.store.traces import LocalTraces

if TYPE_CHECKING:
    from bqbuild.store.batches import LocalBatches
    from bqbuild.store.calls import LocalCallLog
    from bqbuild.store.garbage import LocalGarbage
    from bqbuild.store.health import LocalHealth


class LocalStore:
    """All parts of a store, in one folder."""

    def __init__(self, path: Path) -> None:
        root = path / "v1"
        locks = root / "leases"
        self.scratch = root / "scratch"
        with disk_errors(root):
            make_folder(path)
        check_marker(path)
        with disk_errors(root):
            for folder in (locks, self.scratch, root / "calls" / "segments"):
                make_folder(folder)
        self._session = _Session(self.scratch, locks)
        work = self._session.folder
        damaged = root / "damaged"
        mark = self._session.in_use.mark
        places = {"damaged": damaged, "locks": locks}
        tables = ContentFolders(root / "tables", manifest="table.json", what="table", **places, mark=mark)
        folders = ContentFolders(root / "folders", manifest="folder.json", what="folder", **places, mark=mark)
        self.tables = LocalTables(tables, work)
        self.folders = LocalFolders(folders, work)
        self.traces = LocalTraces(root / "traces", scratch=work, locks=locks, mark=mark)
        self.definitions = LocalDefinitions(root / "definitions", scratch=work)
        self.epochs = LocalEpochs(root / "calls" / "epochs", scratch=work, locks=locks)
        self.environments = LocalEnvironments(root / "environments", scratch=work, locks=locks, mark=mark)
        self.runs = LocalRuns(root / "runs", scratch=work)
        self.pins = LocalPins(root, scratch=work, locks=locks)
        self.leases = LocalLeases(locks)
        self._root = root
        self._content = (tables, folders)

    @cached_property
    def calls(self) -> LocalCallLog:
        """The call log; opened at the first look, for most commands need none."""
        from bqbuild.store.calls import LocalCallLog

        return LocalCallLog(self._root / "calls", scratch=self._session.folder, damaged=self._root / "damaged")

    @cached_property
    def garbage(self) -> LocalGarbage:
        """What collects garbage; only `gc` asks for it."""
        from bqbuild.store.callgarbage import CallGarbage
        from bqbuild.store.garbage import LocalGarbage

        work, locks = self._session.folder, self._root / "leases"
        # none of them marks what it reads: collecting holds the gate, and a mark would wait for it for ever
        tables, folders = (each.unmarked() for each in self._content)
        return LocalGarbage(
            root=self._root,
            own=work,
            tables=tables,
            folders=folders,
            reader=LocalTables(tables, work),
            traces=self.traces,
            environments=LocalEnvironments(
                self._root / "environments", scratch=work, locks=locks, mark=lambda digests: None
            ),
            runs=self.runs,
            pins=self.pins,
            calls=CallGarbage(self._root / "calls", work),
        )

    @cached_property
    def health(self) -> LocalHealth:
        """What finds damage; only `fsck` asks for it."""
        from bqbuild.store.callhealth import CallHealth
        from bqbuild.store.health import LocalHealth

        damaged = self._root / "damaged"
        tables, folders = self._content
        calls = CallHealth(self._root / "calls", self._session.folder, damaged)
        return LocalHealth(
            tables=tables,
            folders=folders,
            reader=self.tables,
            traces=self.traces,
            environments=self.environments,
            runs=self.runs,
            definitions=self.definitions,
            epochs=self.epochs,
            calls=calls,
            damaged=damaged,
        )

    @cached_property
    def batches(self) -> LocalBatches:
        """The batches at providers; opened at the first look, for most commands need none."""
        from bqbuild.store.batches import LocalBatches

        return LocalBatches(self._root / "batches", scratch=self._session.folder, leases=self.leases)

    def close(self) -> None:
        """Release what is held and make everything durable. Raises StoreError."""
        self.leases.close()
        try:
            if "calls" in self.__dict__:
                self.calls.close()
        finally:
            self._session.close()


def open_local(path: str) -> LocalStore:
    """Open the store in the folder `path`, which is made where it is missing. Raises StoreError."""
    return LocalStore(Path(path))


class _Session:
    """A folder for the unfinished files of this process, removed at the end: by us, or by a later process when this
    one was killed. A lock, taken before the folder is made, says that we live."""

    def __init__(self, scratch: Path, locks: Path) -> None:
        self._remove_dead(scratch, locks)
        name = f"session-{uuid4().hex}"
        self.folder = scratch / name
        self._lock_path = locks / f"{name}.lock"
        # Behind the gate: garbage collection sees a process with its lock and its folder, or not at all.
        with gate(locks, exclusive=False), disk_errors(self.folder):
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o666)
            try_lock(self._lock)
            self.folder.mkdir()
        self.in_use = InUse(self.folder, locks)

    def close(self) -> None:
        remove_tree(self.folder)
        self._lock_path.unlink(missing_ok=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @staticmethod
    def _remove_dead(scratch: Path, locks: Path) -> None:
        for folder in scratch.glob("session-*"):
            path = locks / f"{folder.name}.lock"
            with disk_errors(path):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    if try_lock(descriptor):
                        remove_tree(folder)
                        path.unlink(missing_ok=True)
                finally:
                    os.close(descriptor)
