"""What deciding and reporting need of a project.

Two things give it: a `Session`, from the project's files, and an `OutlineView`, from what an earlier command remembered
of them. What is written against these protocols runs the same on both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import orjson

from bqbuild.config.criteria import Definition
from bqbuild.core.errors import Where
from bqbuild.core.hashing import Digest, digest_bytes
from bqbuild.core.records import Column, Node, NodeName, Part, Recipe, Table
from bqbuild.graph.dag import Dag
from bqbuild.store.base import Pointer, Store


@dataclass(frozen=True, slots=True)
class ReadPart:
    """What a node reads of one parent, by the names of the parent's columns: those of the user's, whether row ids
    count, and all columns whose content counts."""

    columns: tuple[str, ...]
    ids: bool
    counted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadMemory:
    """What a node read of parents whose tables had these schemas."""

    schemas: Digest
    parts: Mapping[str, ReadPart]


def schemas_digest(parents: Mapping[str, Table]) -> Digest:
    """A digest of the columns and types of tables by name."""
    schemas = [[name, [[column.name, column.type] for column in parents[name].columns]] for name in sorted(parents)]
    return digest_bytes(orjson.dumps(schemas))


class Redactor(Protocol):
    """Masks secrets."""

    def redact(self, text: str) -> str:
        """`text` with every secret in it masked."""


class ProjectView(Protocol):
    """The plain facts of a project."""

    @property
    def name(self) -> str: ...
    @property
    def root(self) -> Path: ...
    @property
    def target_name(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def artifacts(self) -> Path: ...
    @property
    def nodes(self) -> Mapping[NodeName, Node]: ...
    @property
    def prompts(self) -> Mapping[str, object]: ...
    @property
    def sample(self) -> int | None: ...
    @property
    def selectors(self) -> Mapping[str, Definition]: ...
    @property
    def secrets(self) -> Redactor: ...
    @property
    def warnings(self) -> tuple[tuple[str, Where | None], ...]: ...


class View(Protocol):
    """A project, its graph and its store, as far as deciding what to build needs them."""

    @property
    def project(self) -> ProjectView: ...
    @property
    def dag(self) -> Dag: ...
    @property
    def columns(self) -> Mapping[NodeName, Sequence[str] | None]: ...
    @property
    def environment(self) -> str: ...
    @property
    def artifacts(self) -> Path: ...
    @property
    def store(self) -> Store: ...

    def node(self, name: NodeName) -> Node:
        """The node of that name, which must exist."""

    def recipe(self, name: NodeName) -> Recipe:
        """The node's recipe."""

    def parts(self, name: NodeName) -> Mapping[str, Part]:
        """What the node's recipe is made of, for explanations."""

    def reads(self, node: Node, parents: Mapping[str, Table]) -> Mapping[str, ReadPart]:
        """What the node reads of each parent, whose tables are given by `str(ref)`."""

    def locked(self, source: NodeName) -> Sequence[Column]:
        """The columns that sources.lock has for a source now."""

    def pointers(self) -> dict[NodeName, Pointer]:
        """Where the environment's names point now."""
