"""An opened project: its files read and checked, its graph, and its store when it is needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from bqbuild.config.layout import LOCK, find_project
from bqbuild.config.lock import read_lock
from bqbuild.config.project import Project, load_project
from bqbuild.core.errors import ProjectError, ProjectErrors, Where
from bqbuild.core.findings import Findings
from bqbuild.core.records import Column, Node, NodeName, Part, Recipe, Table
from bqbuild.graph.columns import Names, check_columns
from bqbuild.graph.dag import Dag, build_dag
from bqbuild.graph.parts import parts_of
from bqbuild.graph.recipe import Facts, recipe_of
from bqbuild.run.facts import code_texts_of, gather_facts, world_of
from bqbuild.run.reads import read_parts
from bqbuild.run.view import ReadMemory, ReadPart, schemas_digest
from bqbuild.run.world import World
from bqbuild.store import open_store
from bqbuild.store.base import Pointer, Store


class Session:
    """One command's view of a project. A context manager: leaving it closes the store."""

    def __init__(self, project: Project, dag: Dag, columns: Mapping[NodeName, Names]) -> None:
        self.project = project
        self.dag = dag
        self.columns = columns
        self._store: Store | None = None
        self._facts: Facts | None = None
        self._gathering = threading.Lock()
        self._recipes: dict[NodeName, Recipe] = {}
        self.world: World | None = None
        """What recipes count of the machine, as it was before the first of them was made."""
        self.read_before: dict[NodeName, ReadMemory] = {}
        """What nodes read, as far as it was asked for, now or by an earlier command."""
        self.on_close: list[Callable[[], None]] = []

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def environment(self) -> str:
        """`<project>/<environment>`."""
        return self.project.environment

    @property
    def artifacts(self) -> Path:
        """`.bqbuild/<target>/`, where commands leave what they report."""
        return self.project.artifacts

    @property
    def store(self) -> Store:
        """The target's store; opened at the first look."""
        if self._store is None:
            self._store = open_store(self.project.store_path)
        return self._store

    def node(self, name: NodeName) -> Node:
        """The node of that name, which must exist."""
        return self.project.nodes[name]

    def recipe(self, name: NodeName) -> Recipe:
        """The node's recipe; facts are looked up once for all nodes."""
        if name not in self._recipes:
            self._recipes[name] = recipe_of(self.node(name), self.project, self._known_facts())
        return self._recipes[name]

    def parts(self, name: NodeName) -> dict[str, Part]:
        """What the node's recipe is made of, as far as a user can point at it."""
        node, facts = self.node(name), self._known_facts()
        return parts_of(node, self.project, facts, code_texts_of(self.project, node, facts))

    def _known_facts(self) -> Facts:
        with self._gathering:  # nodes are decided on in threads
            if self._facts is None:
                self.world = world_of(self.project)
                self._facts = gather_facts(self.project, self.project.nodes.values())
            return self._facts

    def recipes(self) -> Mapping[NodeName, Recipe]:
        """The recipes that were asked for so far."""
        return self._recipes

    def reads(self, node: Node, parents: Mapping[str, Table]) -> Mapping[str, ReadPart]:
        """What the node reads of each parent. Raises BuildError for a column that is not there."""
        schemas = schemas_digest(parents)
        known = self.read_before.get(node.name)
        if known is None or known.schemas != schemas:
            known = self.read_before[node.name] = ReadMemory(schemas, read_parts(node, self.project, parents))
        return known.parts

    def locked(self, source: NodeName) -> Sequence[Column]:
        """The columns that sources.lock has for a source now: building one writes to it."""
        return read_lock(self.project.root / LOCK).columns(source) or ()

    def pointers(self) -> dict[NodeName, Pointer]:
        """Where the environment's names point now."""
        return self.store.environments.read(self.environment)

    def models(self) -> list[NodeName]:
        """All nodes that are not sources, in the order of the graph."""
        return [name for name in self.dag.order if self.node(name).kind != "source"]

    def close(self) -> None:
        """Close the store, and do what was put off until then."""
        while self.on_close:
            self.on_close.pop()()
        if self._store is not None:
            self._store.close()
            self._store = None


def open_session(
    project_dir: Path | None = None,
    *,
    target: str | None = None,
    variables: Mapping[str, Any] | None = None,
    sample: int | None = None,
    environ: Mapping[str, str] = os.environ,
    findings: Findings | None = None,
) -> Session:
    """Read and check a project; `sample` and `findings` as in Project. Raises ProjectErrors with every mistake that can
    be found without running it."""
    read = read_project(project_dir, target=target, variables=variables, environ=environ)
    project = replace(read, sample=sample, findings=findings or Findings())
    dag = build_dag(project.nodes, project.findings)
    columns = check_columns(project, dag)
    if columns.errors:
        raise ProjectErrors(columns.errors)
    return Session(project, dag, columns.known)


def read_project(
    project_dir: Path | None = None,
    *,
    target: str | None = None,
    variables: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Project:
    """The project in `project_dir`, or the one that the working directory is in. Raises ProjectErrors, UsageError."""
    root = project_dir if project_dir is not None else find_project(Path.cwd())
    project = load_project(root, target=target, variables=variables, environ=environ)
    if project.target.engine != "local":
        raise ProjectError(
            f"target `{project.target_name}` asks for the engine `{project.target.engine}`, which this release lacks",
            where=Where("project/profiles.yml"),
            hint="write `engine: local`",
        )
    return project
