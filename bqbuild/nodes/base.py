"""The two protocols of a node kind: whole tables, or rows that stream.

A row kind never does I/O: it yields the calls it wants as values and gets their replies sent back, so one definition
serves the engine (which looks keys up in bulk and sends only misses), the planner and the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from bqbuild.config.project import Project
from bqbuild.core.events import Event
from bqbuild.core.hashing import Digest
from bqbuild.core.records import CallKey, ChatReply, ChatRequest, Node, NodeName, RowError, Table
from bqbuild.store.base import Store


@dataclass(frozen=True, slots=True)
class Ask:
    """One call that a row wants. `llm` is the name of a connection."""

    llm: str
    request: ChatRequest


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an `Ask`; a reply always (where there is none, the engine ends the row itself)."""

    key: CallKey
    reply: ChatReply


@dataclass(slots=True)
class Made:
    """The rows that one task made (all columns of the program's schema), and the rows that it could not make.

    `notes` are recorded with the errors but spoil nothing: a ballot that did not count, items that were cut. `sides`
    has rows for the program's side tables.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    errors: list[RowError] = field(default_factory=list)
    notes: list[RowError] = field(default_factory=list)
    sides: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


RowSteps = Generator[Sequence[Ask], Sequence[Answer], Made]


@dataclass(slots=True)
class Task:
    """The smallest unit that fails alone: an input row, and its matrix cell and sample where there are any."""

    row_id: str
    cell: str
    steps: RowSteps


class RowProgram(Protocol):
    """A row kind, prepared for one node: templates compiled, schema known; and its side tables' schemas by name."""

    schema: pa.Schema
    sides: Mapping[str, pa.Schema]

    def tasks(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Task]]:
        """The tasks of each row, a list a row; rows hold the input's columns, lineage columns included."""

    def settle(self, rows: list[dict[str, Any]]) -> Made:
        """A last, pure look at rows that were made, many at a time, before they leave (`accept`): rows and sides."""


@dataclass(slots=True)
class RowsDone:
    """What `BuildContext.run_rows` gives back: the rows made, the errors, and how many rows had no answer."""

    table: pa.Table
    errors: list[RowError]
    missing: int


@dataclass(frozen=True, slots=True)
class BuildContext:
    """All that a kind may use while it builds one node."""

    node: NodeName
    project: Project
    store: Store
    scratch: Path
    emit: Callable[[Event], None]
    run_rows: Callable[[RowProgram, Iterable[pa.RecordBatch]], RowsDone]
    """Drive a row program over batches from inside a table kind (a filter's judge); blocks."""
    identities: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Built:
    """The tables that a node made: the main one, and side tables by name (`rejects`, `summary`, `errors`).

    `incomplete` counts the rows without an answer: the node is then `partial` and is built again by the next run.
    """

    table: Table
    sides: Mapping[str, Table] = field(default_factory=dict)
    incomplete: int = 0


class TableKind(Protocol):
    """A kind that needs its whole inputs. Called in a worker thread."""

    def build(self, node: Node, inputs: Mapping[str, Table], ctx: BuildContext) -> Built:
        """Build the node. `inputs` maps `str(ref)` to the table. Raises BqError."""


class RowKind(Protocol):
    """A kind whose rows are independent of each other, so that they stream."""

    def program(self, node: Node, input_schema: pa.Schema, ctx: BuildContext) -> RowProgram:
        """Prepare the node for rows of `input_schema`. Raises BqError."""


@dataclass(frozen=True, slots=True)
class ExtraInput:
    """Content that a kind reads which is not a table: a source's files, a model's weights."""

    name: str
    digest: Digest
