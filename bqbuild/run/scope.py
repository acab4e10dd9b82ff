"""Which nodes a run builds, and which it only reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bqbuild.core.errors import BqError, UsageError
from bqbuild.core.records import NodeName
from bqbuild.run.inputs import read_inputs
from bqbuild.run.paid import is_paid
from bqbuild.run.state import State
from bqbuild.run.view import View


def nodes_to_build(session: View, state: State, names: Sequence[NodeName]) -> tuple[NodeName, ...]:
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
                    hint=f"build it too: --select +{name}; or read it from another environment: --defer",
                )
            added = with_sources(session, [parent]) - chosen
            chosen |= added
            waiting += added
    return session.dag.sort(chosen)


def stale_parents(session: View, state: State, chosen: Iterable[NodeName]) -> dict[NodeName, str]:
    """Unselected parents that are read as they are although they, or what is above them, changed since; what to tell
    of each."""
    chosen = set(chosen)
    dag = session.dag
    read = {parent for name in chosen for parent in dag.parents[name]} - chosen
    causes: dict[NodeName, str] = {}
    stale = {}
    for name in dag.sort({each for parent in read for each in (parent, *dag.ancestors(parent))}):
        inherited = next((causes[parent] for parent in dag.parents[name] if parent in causes), "")
        is_changed = _is_changed(session, state, name)
        if is_changed or inherited:
            causes[name] = f"`{name}`" if is_changed else inherited
        if name in read and name in causes:
            cause, hint = ("its declaration", name) if is_changed else (inherited, f"+{name}")
            stale[name] = f"`{name}` is read as it was built, though {cause} has changed since; select `{hint}` too"
    return stale


def _is_changed(session: View, state: State, name: NodeName) -> bool:
    """Whether a node's declaration, or the files of a source, are not those that it was built from."""
    pointer = state.pointers.get(name)
    trace = session.store.traces.find([pointer.trace]).get(pointer.trace) if pointer else None
    if trace is None:
        return False
    node = session.node(name)
    if trace.recipe != session.recipe(name).digest:
        return True
    if node.kind != "source":
        return False
    try:
        now = read_inputs(session, node, {})
    except BqError:  # files that this run does not need may be missing
        return False
    return any(trace.inputs.get(key) != given for key, given in now.items())


def with_sources(session: View, names: Iterable[NodeName]) -> set[NodeName]:
    """The names and the sources that they read."""
    chosen = set(names)
    for name in list(chosen):
        chosen |= {parent for parent in session.dag.parents[name] if session.node(parent).kind == "source"}
    return chosen
