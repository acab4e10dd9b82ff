"""What `bqbuild retry` asks for again: the calls behind unusable answers of the last build, and the missing ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bqbuild.core.errors import BqError, UsageError
from bqbuild.core.hashing import Digest
from bqbuild.core.records import CALLS, CallKey, Node, NodeName, RowError, Table
from bqbuild.llm.client import Client
from bqbuild.nodes import ROW_KINDS, row_kind
from bqbuild.nodes.base import Made
from bqbuild.nodes.predicates import RowPredicate
from bqbuild.run.context import bare_context
from bqbuild.run.desk import Desk
from bqbuild.run.judging import replay_judges
from bqbuild.run.paid import connections_of
from bqbuild.run.replay import replay
from bqbuild.run.rows import RowFilter, row_groups
from bqbuild.run.session import Session
from bqbuild.run.state import State
from bqbuild.store.types import schema_of

CUT = "cut"
"""The reason of a note on items beyond `max_items`: the answer was used."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The calls to send again; how many rows have no answer at all; the models to build, in the order of the graph."""

    keys: frozenset[CallKey]
    missing: int
    names: tuple[NodeName, ...]


def find_retry(session: Session, names: Sequence[NodeName]) -> Retry:
    """What is to be asked for again of these models. Raises UsageError where one has changed since it was built."""
    state = State(session, pointers=session.pointers())
    failed = _failed_last(session)
    keys: set[CallKey] = set()
    missing = 0
    chosen: list[NodeName] = []
    for name in names:
        node = session.node(name)
        if not connections_of(node):
            continue
        errors = list(_replayed(session, state, node) if name in failed else _recorded(state, node))
        found = {CallKey(call) for error in errors for call in error.calls if error.answered}
        unanswered = sum(not error.answered for error in errors)
        if found or unanswered or name in failed:
            chosen.append(name)
            keys |= found
            missing += unanswered
    for name in chosen:
        if name not in failed:
            _check_unchanged(state, session.node(name))
    return Retry(frozenset(keys), missing, _with_those_below(state, chosen, failed))


def _recorded(state: State, node: Node) -> Iterator[RowError]:
    """What the errors table of the last build names: answers that were of no use, and rows without one."""
    output = state.output(node.name)
    table = output.tables.get("errors") if output is not None else None
    for batch in state.session.store.tables.batches(table) if table is not None else ():
        for row in batch.to_pylist():
            if row["reason"] != CUT and (row[CALLS] or not row["answered"]):
                calls = tuple(row[CALLS] or ())
                yield RowError(row["_bq_parent"], row["cell"], row["reason"], "", row["answered"], calls=calls)


def _replayed(session: Session, state: State, node: Node) -> Iterator[RowError]:
    """The same of a model that failed and has no errors table, where its input is there: from its recorded calls."""
    parents = state.parents(node)
    if parents is None:
        return
    llms = session.project.target.llms
    desk = Desk(Client(llms, session.store.calls, lambda message: None), session.store.calls, lambda name: llms[name])
    found: list[RowError] = []

    def note(made: Made) -> None:
        found.extend(error for error in (*made.errors, *made.notes) if error.calls and error.reason != CUT)

    if node.kind in ROW_KINDS:
        _replay_rows(session, node, parents[node.spec.from_], desk, note)
    elif node.kind == "filter":
        with suppress(BqError):  # of a rule that failed for another reason; its run will say so again
            replay_judges(session, node, parents, desk, set(), note)
    yield from found


def _replay_rows(session: Session, node: Node, table: Table, desk: Desk, note: Callable[[Made], None]) -> None:
    schema = schema_of(table.columns)
    program = row_kind(node.kind).program(node, schema, bare_context(session, node))
    where = None
    if node.spec.where:
        where = RowFilter(RowPredicate(node.spec.where, node.places.get("where", node.where)), schema)
    replay(program, row_groups(session.store.tables.batches(table)), desk, where=where, on_made=note)


def _check_unchanged(state: State, node: Node) -> None:
    """A retry repeats calls of the last build. What has changed since is for `run`, which may cost more."""
    for name in (*(ref.node for ref in node.refs if state.session.node(ref.node).kind == "source"), node.name):
        decision, _ = state.decide(state.session.node(name))
        pointer = state.pointers.get(name)
        if pointer is not None and decision.key != pointer.trace:
            raise UsageError(
                f"`{name}` has changed since its last build, which `retry` would repeat",
                where=state.session.node(name).where,
                hint="`bqbuild plan` shows what changed; `bqbuild run` builds it",
            )


def _with_those_below(state: State, names: Sequence[NodeName], failed: set[NodeName]) -> tuple[NodeName, ...]:
    """The models and what is below them, as far as it was built (or failed) as it is declared now."""
    session = state.session
    below = {name for above in names for name in session.dag.descendants(above)}
    unchanged = {name for name in below if name in failed or _is_unchanged(state, name)}
    return session.dag.sort({*names, *unchanged})


def _is_unchanged(state: State, name: NodeName) -> bool:
    pointer = state.pointers.get(name)
    trace = state.session.store.traces.find([pointer.trace]).get(pointer.trace) if pointer is not None else None
    return trace is not None and trace.recipe == state.session.recipe(name).digest


def _failed_last(session: Session) -> set[NodeName]:
    """The models that the last command could not build, or did not come to, and that are declared as they were."""
    results, manifest = _artifact(session, "run_results.json"), _artifact(session, "manifest.json")
    if results.get("metadata", {}).get("environment") != session.environment:
        return set()
    found = set()
    for result in results.get("results", []):
        name = NodeName(result["name"])
        declared = manifest.get("nodes", {}).get(name, {}).get("definition")
        has_failed = result["status"] in ("error", "skipped") and name in session.project.nodes
        if has_failed and declared is not None and session.recipe(name).digest == Digest(declared):
            found.add(name)
    return found


def _artifact(session: Session, name: str) -> dict[str, Any]:
    try:
        value = json.loads((session.artifacts / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
