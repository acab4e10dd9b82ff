"""An outline of a project: what planning needs of it once it is parsed, as JSON, and a view made of that.

Everything in it was computed by the code that reads projects, and is only remembered here. Bodies, prompts and
templates are left out: whoever builds, compiles or shows something reads the project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bqbuild.config.criteria import Definition
from bqbuild.config.layout import SAMPLE
from bqbuild.config.secrets import Secrets
from bqbuild.core.errors import Where
from bqbuild.core.hashing import Digest
from bqbuild.core.records import Column, Node, NodeName, Part, Recipe, Ref, Table
from bqbuild.graph.dag import ordered_dag
from bqbuild.run.specmemory import RememberedSpec, encode_spec
from bqbuild.run.view import ReadMemory, ReadPart, schemas_digest
from bqbuild.run.world import same_world
from bqbuild.store import open_store
from bqbuild.store.base import Pointer, Store

if TYPE_CHECKING:
    from bqbuild.run.session import Session

Outline = Mapping[str, Any]


class NotRememberedError(Exception):
    """The outline does not know: the project must be read."""


def outline_of(session: Session) -> Outline:
    """The outline of what is read, with the recipes where all are known. Raises NoMemoryError."""
    project = session.project
    recipes = session.recipes()
    is_known = session.world is not None and same_world(session.world) and recipes.keys() == project.nodes.keys()
    return {
        "project": {
            "name": project.name,
            "target": project.target_name,
            "environment": replace(project, sample=None).environment,
            "store": project.store_path,
            "selectors": dict(project.selectors),
            "prompts": len(project.prompts),
            "warnings": [[message, _place(where) if where else None] for message, where in project.warnings],
        },
        "nodes": {name: _node(node) for name, node in project.nodes.items()},
        "order": list(session.dag.order),
        "columns": {name: None if known is None else list(known) for name, known in session.columns.items()},
        "locked": {
            name: [[column.name, column.type] for column in columns] for name, columns in project.lock.sources.items()
        },
        "has_tests": _has_tests(session),
        "world": session.world if is_known else None,
        "recipes": {name: _recipe(recipe) for name, recipe in recipes.items()} if is_known else {},
        "reads": {name: _reads(memory) for name, memory in session.read_before.items()},
    }


@dataclass(frozen=True, slots=True)
class OutlineProject:
    """The plain facts of a project that was read before."""

    name: str
    root: Path
    target_name: str
    whole: str
    """The environment of the whole data."""
    sample: int | None
    artifacts: Path
    store_path: str
    nodes: Mapping[NodeName, Node]
    prompts: Mapping[str, object]
    selectors: Mapping[str, Definition]
    warnings: tuple[tuple[str, Where | None], ...]
    secrets: Secrets

    @property
    def environment(self) -> str:
        """The environment that this target publishes to; that of a sample stands beside it."""
        return self.whole if self.sample is None else f"{self.whole}{SAMPLE}"


class OutlineView:
    """What an outline shows of a project. A context manager: leaving it closes the store."""

    def __init__(
        self, root: Path, outline: Outline, *, secrets: Secrets, digests: Mapping[str, Digest], sample: int | None
    ) -> None:
        self.digests = digests
        """The files that the outline was made from."""
        self._outline = outline
        self._world: bool | None = None
        self._store: Store | None = None
        self.project = _project(root, outline, secrets, sample)
        self.dag = ordered_dag(outline["order"], self.project.nodes)

    def __enter__(self) -> OutlineView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def environment(self) -> str:
        """`<project>/<environment>`."""
        return self.project.environment

    @property
    def artifacts(self) -> Path:
        """`.bqbuild/<target>/`."""
        return self.project.artifacts

    @property
    def columns(self) -> Mapping[NodeName, Sequence[str] | None]:
        """The columns of every node, as far as they are known before anything is built."""
        known: Mapping[NodeName, Sequence[str] | None] = self._outline["columns"]
        return known

    @property
    def has_tests(self) -> bool:
        """Whether the project has data tests."""
        return bool(self._outline["has_tests"])

    @property
    def has_recipes(self) -> bool:
        """Whether recipes are known, and what they count of the machine is as it was."""
        if self._world is None:
            world = self._outline["world"]
            self._world = world is not None and same_world(world)
        return self._world

    @property
    def store(self) -> Store:
        """The target's store; opened at the first look."""
        if self._store is None:
            self._store = open_store(self.project.store_path)
        return self._store

    def node(self, name: NodeName) -> Node:
        """The node of that name, without its body."""
        return self.project.nodes[name]

    def recipe(self, name: NodeName) -> Recipe:
        """The node's recipe, without places. Raises NotRememberedError."""
        if not self.has_recipes:
            raise NotRememberedError
        known = self._outline["recipes"][name]
        return Recipe(known["kind"], known["semantics"], known["components"], known["digest"])

    def parts(self, name: NodeName) -> Mapping[str, Part]:
        """Raises NotRememberedError: whoever has something to explain has something to read."""
        raise NotRememberedError

    def reads(self, node: Node, parents: Mapping[str, Table]) -> Mapping[str, ReadPart]:
        """What the node reads of parents with these columns. Raises NotRememberedError."""
        known = self._outline["reads"].get(node.name)
        if known is None or known[0] != schemas_digest(parents):
            raise NotRememberedError
        return _memory(known).parts

    def read_before(self) -> dict[NodeName, ReadMemory]:
        """All that is remembered of what nodes read."""
        return {NodeName(name): _memory(known) for name, known in self._outline["reads"].items()}

    def locked(self, source: NodeName) -> Sequence[Column]:
        """The columns that sources.lock has for a source."""
        return [Column(name, kind) for name, kind in self._outline["locked"].get(source, ())]

    def pointers(self) -> dict[NodeName, Pointer]:
        """Where the environment's names point now."""
        return self.store.environments.read(self.environment)


def _node(node: Node) -> dict[str, Any]:
    return {
        "kind": node.kind,
        "spec": encode_spec(node.spec)["spec"],
        "refs": [[ref.node, ref.side] for ref in node.refs],
        "where": _place(node.where),
        "path": node.path,
        "fqn": list(node.fqn),
        "patch": node.patch,
    }


def _recipe(recipe: Recipe) -> dict[str, Any]:
    return {
        "kind": recipe.kind,
        "semantics": recipe.semantics,
        "components": dict(recipe.components),
        "digest": recipe.digest,
    }


def _reads(memory: ReadMemory) -> list[Any]:
    parts = {name: [list(part.columns), part.ids, list(part.counted)] for name, part in memory.parts.items()}
    return [memory.schemas, parts]


def _memory(known: Sequence[Any]) -> ReadMemory:
    parts = {name: ReadPart(tuple(columns), ids, tuple(counted)) for name, (columns, ids, counted) in known[1].items()}
    return ReadMemory(Digest(known[0]), parts)


def _has_tests(session: Session) -> bool:
    folder = session.project.root / "project" / "tests"
    specs = [node.spec for node in session.project.nodes.values()]
    return any(folder.rglob("*.sql")) or any(
        spec.tests or any(column.tests for column in spec.columns) for spec in specs
    )


def _place(where: Where) -> list[Any]:
    return [where.file, where.line, where.column]


def _project(root: Path, outline: Outline, secrets: Secrets, sample: int | None) -> OutlineProject:
    known = outline["project"]
    nodes = {
        NodeName(name): Node(
            NodeName(name),
            entry["kind"],
            RememberedSpec(entry["spec"]),
            tuple(Ref(NodeName(parent), side) for parent, side in entry["refs"]),
            Where(*entry["where"]),
            entry["path"],
            tuple(entry["fqn"]),
            patch=entry["patch"],
        )
        for name, entry in outline["nodes"].items()
    }
    return OutlineProject(
        name=known["name"],
        root=root,
        target_name=known["target"],
        whole=known["environment"],
        sample=sample,
        artifacts=root / ".bqbuild" / known["target"],
        store_path=known["store"],
        nodes=nodes,
        prompts=dict.fromkeys(map(str, range(known["prompts"]))),
        selectors=known["selectors"],
        warnings=tuple((message, Where(*place) if place else None) for message, place in known["warnings"]),
        secrets=secrets,
    )
