"""`sources.lock`, renewed on request: the types of sources inferred from their data once more."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bqbuild.config.layout import LOCK
from bqbuild.config.lock import SourcesLock
from bqbuild.config.project import Project
from bqbuild.core.errors import UsageError, did_you_mean
from bqbuild.core.records import Column, Node
from bqbuild.nodes.source import infer_columns
from bqbuild.nodes.source_files import check_sha256, fetch, source_files


@dataclass(frozen=True, slots=True)
class LockChange:
    """What changed for one source: columns that came, that went, and (column, before, now) of those retyped."""

    source: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    retyped: tuple[tuple[str, str, str], ...]

    def __str__(self) -> str:
        parts = [f"+ {name}" for name in self.added] + [f"- {name}" for name in self.removed]
        parts += [f"{name}: {before} → {now}" for name, before, now in self.retyped]
        return f"{self.source}: {', '.join(parts)}"


def update_lock(project: Project, names: Collection[str]) -> list[LockChange]:
    """Infer the columns of the sources `names` (all where it is empty) and write the lock; what changed.

    Sources that the project no longer has leave the lock. Raises UsageError for a name that is no source, BuildError
    for data that cannot be read.
    """
    sources = {str(name): node for name, node in project.nodes.items() if node.kind == "source"}
    for name in names:
        if name not in sources:
            hint = did_you_mean(name, sources) or f"sources are {', '.join(sorted(sources)) or 'none'}"
            raise UsageError(f"there is no source `{name}`", hint=hint)
    kept = {name: columns for name, columns in project.lock.sources.items() if name in sources}
    lock, changes = SourcesLock(kept), []
    for name in project.lock.sources.keys() - sources.keys():
        changes.append(_change(name, project.lock.columns(name) or (), ()))
    for name, node in sorted(sources.items()):
        if not names or name in names:
            columns = _inferred(project, node)
            changes.append(_change(name, lock.columns(name) or (), columns))
            lock = lock.with_source(name, columns)
    lock.write(project.root / LOCK)
    return [change for change in changes if change.added or change.removed or change.retyped]


def _inferred(project: Project, node: Node) -> list[Column]:
    files = source_files(node.spec, project.root, node.where)
    fetch(node.spec, files, node.where)
    check_sha256(node.spec, files, project.artifacts / "stat_cache.json", node.where)
    return infer_columns(node.spec, files, node.where)


def _change(name: str, before: Sequence[Column], now: Sequence[Column]) -> LockChange:
    old, new = ({column.name: column.type for column in columns} for columns in (before, now))
    return LockChange(
        source=name,
        added=tuple(column for column in new if column not in old),
        removed=tuple(column for column in old if column not in new),
        retyped=tuple(
            (column, old[column], new[column]) for column in new if old.get(column, new[column]) != new[column]
        ),
    )
