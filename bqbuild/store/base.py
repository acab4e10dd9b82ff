"""The protocols of a store. `store.local` implements them in a folder; an object store comes beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bqbuild.core.batches import BatchBook
from bqbuild.core.errors import StoreError
from bqbuild.core.hashing import Digest
from bqbuild.core.records import CallKey, CallRecord, NodeName, Part, Table, Trace

if TYPE_CHECKING:  # a command that reads no rows should not wait for it
    import pyarrow as pa

CONTENT_SCHEME = 1
"""The form of content digests, part of each: a change of what is digested is a change of scheme."""

CONTENT_SCHEME = 1
"""Bumped when the digest of equal content changes; part of every digest of content."""

ORDER = "_bq_order"
"""A binary column that a writer sorts by and drops; for rows that finish out of order."""


class DamagedError(StoreError):
    """A file of the store is not what was written. A damaged table or folder is set aside at once, so that `find` no
    longer gives it and a build makes it again: `digest` is its. Damaged calls stay where they are."""

    def __init__(self, message: str, *, hint: str | None = None, digest: Digest | None = None) -> None:
        super().__init__(message, hint=hint)
        self.digest = digest


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of the store that is not what was written, as `fsck` tells of it.

    `action` is what became of it. `calls` are those that cannot be read and `cost` what they cost in dollars; `seconds`
    is what a training took that would have to be repeated. None where nothing is lost, or nobody knows.
    """

    what: str
    path: str
    problem: str
    action: str
    models: tuple[str, ...] = ()
    calls: int | None = None
    cost: float | None = None
    seconds: float | None = None


class TableWriter(Protocol):
    """Receives the rows of one table. Nothing is visible before `commit`."""

    def write(self, data: pa.RecordBatch | pa.Table) -> None:
        """Add rows. The schema is the writer's, with an `ORDER` column in front where the writer was made so."""

    def commit(self) -> Table:
        """Make the table appear, whole, under the digest of its content; an equal table is reused."""

    def abort(self) -> None:
        """Forget what was written."""


class Tables(Protocol):
    """Immutable, content-addressed tables."""

    def writer(self, schema: pa.Schema, *, ordered: bool = False) -> TableWriter:
        """A writer for rows of `schema`; with `ordered` each batch also has the `ORDER` column."""

    def find(self, digest: Digest) -> Table | None:
        """The table, or None where it, or one of its files (name and size are looked at), is not there."""

    def files(self, table: Table) -> list[Path]:
        """The table's Parquet files as local paths, in order."""

    def batches(self, table: Table, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in order, in batches of bounded size. Raises StoreError for a damaged file."""

    def content_digest(self, table: Table, columns: Sequence[str]) -> Digest:
        """Digest of the multiset of the tuples of `columns`: independent of row order; remembered."""


class Traces(Protocol):
    """What was built from what."""

    def find(self, keys: Sequence[Digest]) -> dict[Digest, Trace]:
        """The traces recorded under these build keys."""

    def put(self, trace: Trace, calls: bytes | None = None) -> None:
        """Record a trace; the last one for a key wins, but a partial one never replaces a complete one. `calls` are the
        keys of the calls that the build used, 16 bytes each."""


class Definitions(Protocol):
    """What recipes were made of, for explanations: nothing that is built depends on it."""

    def put(self, recipe: Digest, parts: Mapping[str, Part]) -> None:
        """Remember the parts of a recipe; what is remembered of it stays."""

    def find(self, recipe: Digest) -> dict[str, Part] | None:
        """The parts of a recipe, without places; None where it is not known, or damaged."""


class CallLog(Protocol):
    """The durable record of every answered call."""

    def find(self, keys: Sequence[CallKey], *, repay: bool = False) -> dict[CallKey, CallRecord]:
        """The recorded calls among `keys`, looked up in bulk.

        Raises DamagedError where one that is not found may be in a file that is damaged; with `repay` such files are
        set aside instead, and what they lost counts as never made.
        """

    async def append(self, record: CallRecord) -> None:
        """Record a call; returns when it is durable. Raises StoreError (a full disk …)."""

    def room(self) -> int:
        """How many answers there is room for, those on their way included. Raises StoreError where for none."""

    def close(self) -> None:
        """Flush, and compact the journal into a segment."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where an environment's name points: the trace that made the tables, and the tables by side ("" is the main)."""

    trace: Digest
    tables: Mapping[str, Digest]


@dataclass(frozen=True, slots=True)
class Replaced:
    """Calls that were asked for again. Where a file is damaged it is not certain that these are all."""

    keys: frozenset[CallKey]
    is_certain: bool = True


class Attempt(Protocol):
    """One attempt at asking for answers again. Answers bought at attempt `since` or later count as renewed."""

    number: int
    since: int

    def note(self, keys: Iterable[CallKey], *, durably: bool = True) -> None:
        """Write down calls that are about to be replaced, before they are sent. Raises StoreError."""

    def finish(self) -> None:
        """All that was to be asked for again was; without this, the same work goes on from here."""


class Epochs(Protocol):
    """The times that answers were asked for again, numbered from 1."""

    def latest(self) -> int:
        """The number of the last attempt, 0 where there was none."""

    def settled(self) -> int:
        """The number up to which every attempt has ended, so that nothing more is replaced by it."""

    def replaced(self, after: int) -> Replaced:
        """The calls that attempts after that number have replaced, or may have."""

    def pending(self, work: Mapping[str, Any]) -> int | None:
        """The number of the first attempt at this work where it is begun and not finished."""

    def begin(self, work: Mapping[str, Any], keys: Iterable[CallKey] = ()) -> AbstractContextManager[Attempt]:
        """One more attempt at `work`, which replaces `keys` and whatever is noted. Raises StoreError where another
        process is at such work in this store."""


class Environments(Protocol):
    """Named sets of pointers."""

    def read(self, environment: str) -> dict[NodeName, Pointer]:
        """The pointers of `<project>/<environment>`; empty where there is none yet."""

    def move(self, environment: str, pointers: Mapping[NodeName, Pointer | None]) -> bool:
        """Set (or with None remove) pointers, atomically, keeping those that others moved meanwhile; whether any
        points elsewhere now."""

    def names(self) -> list[str]:
        """All environments of the store."""

    def moved_at(self) -> int:
        """When any pointer of the store moved last, in nanoseconds; 0 where none did."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run that moved pointers: its id, when it ended (UTC), its command, and all pointers of the environment after
    it."""

    id: str
    time: datetime
    command: str
    pointers: Mapping[NodeName, Pointer]


class Runs(Protocol):
    """The history of environments. A run that moved no pointer is no part of it."""

    def record(self, environment: str, command: str, pointers: Mapping[NodeName, Pointer]) -> RunRecord:
        """Write down that a run ended, and where all names point after it."""

    def list(self, environment: str, limit: int | None = None) -> Sequence[RunRecord]:
        """The recorded runs, the newest first; the `limit` newest where one is given. Raises DamagedError."""

    def environments(self) -> Sequence[str]:
        """All environments that have a history; they may be gone themselves."""


class Leases(Protocol):
    """Mutual exclusion between runs; a lease dies with its process."""

    def hold(self, name: str) -> AbstractContextManager[bool]:
        """Wait for the lease and hold it. The value is True where another run had to be waited for."""


class Folders(Protocol):
    """Content-addressed folders of files: checkpoints, reports."""

    def put(self, path: Path) -> Digest:
        """Adopt the folder at `path` (it is moved or copied); atomic."""

    def find(self, digest: Digest) -> Path | None:
        """The local folder, or None."""


@dataclass(frozen=True, slots=True)
class Pile:
    """Things of one sort: how many, how many bytes, and for calls what they cost in dollars."""

    sort: str
    count: int
    bytes: int
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Garbage:
    """What can go (`drop`) and what stays (`keep`). `calls` are those that can go, None where nobody asked;
    `calls_kept` are all that there are now."""

    drop: Sequence[Pile]
    keep: Sequence[Pile]
    calls: Pile | None
    calls_kept: Pile
    pins: Sequence[str]


class Pins(Protocol):
    """What a user wants to keep, whatever environments point to."""

    def read(self) -> dict[str, list[Digest]]:
        """The traces and tables that each pin keeps."""

    def change(self, added: Mapping[str, Collection[Digest]], removed: Collection[str] = ()) -> None:
        """Pin and unpin."""


class Collector(Protocol):
    """Garbage collection."""

    def collect(self, *, keep_runs: int, delete: bool = False, calls: bool = False) -> Garbage:
        """What can go and what stays; with `delete` it goes. `calls` takes calls that no kept build used as well."""


class Health(Protocol):
    """What finds damage before a run does."""

    def check(self, *, repay: bool = False) -> Iterator[Damage]:
        """Every file that is not what was written. What can be made again at no cost is set aside; calls that are lost
        only with `repay`."""


class Store(Protocol):
    """All of the above for one root. `scratch` is a folder on the same disk for unfinished work."""

    tables: Tables
    traces: Traces
    definitions: Definitions
    calls: CallLog
    epochs: Epochs
    environments: Environments
    runs: Runs
    leases: Leases
    batches: BatchBook
    folders: Folders
    health: Health
    pins: Pins
    garbage: Collector
    scratch: Path

    def close(self) -> None:
        """Release what is held and make everything durable."""
