"""Which nodes a run builds, and which it only reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bqbuild.core.errors import UsageError
from bqbuild.core.records import NodeName
from bqbuild.run.facts import is_paid
from bqbuild.run.session import Session, with_sources
from bqbuild.run.state import State


def nodes_to_build(session: Session, state: State, names: Sequence[NodeName]) -> tuple[NodeName, ...]:
    """The selected nodes, their sources, and the free parents that are missing, in the order of the graph.

    Raises UsageError where a parent that costs something was never built here.
    """
    chosen = with_sources(session, names)
    waiting = list(chosen)
    while waiting:
        name = waiting.pop()
        for parent in session.dag.parents[name]:
            if parent in chosen or state.output(parent) is not None:
                continue
            if is_paid(session.node(parent)):
                raise UsageError(
                    f"`{name}` reads `{parent}`, which is not built in `{session.environment}` and not selected",
                    where=session.node(name).where,
                    hint=f"select it as well: --select +{name}",
                )
            added = with_sources(session, [parent]) - chosen
            chosen |= added
            waiting += added
    return session.dag.sort(chosen)


def stale_parents(session: Session, state: State, chosen: Iterable[NodeName]) -> list[NodeName]:
    """Unselected parents that are read as they are although what declares them has changed since."""
    chosen = set(chosen)
    read = {parent for name in chosen for parent in session.dag.parents[name]} - chosen
    stale = []
    for name in session.dag.sort(read):
        pointer = state.pointers.get(name)
        trace = session.store.traces.find([pointer.trace]).get(pointer.trace) if pointer else None
        if trace is not None and trace.recipe != session.recipe(name).digest:
            stale.append(name)
    return stale
