"""Runs and plans in which nothing has changed, decided from what is remembered of the project (rule C1).

The decision is that of every run: `State.decide`, node by node. Where it is not `cached` for each of them, or cannot be
told from an outline, nothing has been said or written yet, and the project is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bqbuild.core.errors import BqError
from bqbuild.core.events import Counts, Event, Listener, NodeFinished, NodeResult, RunFinished, RunStarted, Warned
from bqbuild.core.records import Node, NodeName, Table
from bqbuild.plan.plan import Amount, Plan, Step
from bqbuild.plan.rebuild import CACHED, Decision
from bqbuild.run.artifacts import WAREHOUSE, WAREHOUSE_STAMP, run_results, write_json, write_manifest
from bqbuild.run.contracts import check_contract
from bqbuild.run.eventlog import event_log
from bqbuild.run.options import RunOptions
from bqbuild.run.outline import NotRememberedError, OutlineView
from bqbuild.run.results import node_result
from bqbuild.run.scope import nodes_to_build, stale_parents
from bqbuild.run.state import Output, State

Settled = tuple[Node, Decision, Output]


def run_unchanged(
    view: OutlineView, names: Sequence[NodeName], options: RunOptions, listeners: Sequence[Listener], *, command: str
) -> dict[str, Any] | None:
    """What `run_models` does and returns where nothing has changed; None where something has, or may have."""
    began = time.monotonic()
    if not _is_plain(options) or (options.tests and view.has_tests) or not _has_warehouse(view):
        return None
    state = State(view, pointers=view.pointers())
    settled = _settled(view, state, names)
    if settled is None:
        return None
    results = [_result(node, decision, output.tables) for node, decision, output in settled]
    with event_log(view, command) as log:
        for event in _events(view, state, results, began):
            for listener in (*listeners, log):
                listener(event)
    document = run_results(view, results, command=command)
    write_json(view.artifacts / "run_results.json", document)
    write_manifest(view, command)
    return document | {"succeeded": True}


def plan_unchanged(
    view: OutlineView, names: Sequence[NodeName], *, warn: Callable[[str], None] = lambda message: None
) -> Plan | None:
    """The plan where nothing has changed; None where something has, or may have."""
    state = State(view, pointers=view.pointers())
    settled = _settled(view, state, names)
    if settled is None:
        return None
    for message in stale_parents(view, state, [node.name for node, _, _ in settled]).values():
        warn(message)
    steps = [
        Step(node.name, node.kind, decision.action, decision.reasons, rows=Amount(output.tables[""].rows))
        for node, decision, output in settled
        if node.kind != "source"
    ]
    return Plan(view.environment, tuple(steps))


def _settled(view: OutlineView, state: State, names: Sequence[NodeName]) -> list[Settled] | None:
    """Every node with its tables, where all are cached and nothing would be published."""
    if not view.has_recipes:
        return None
    settled: list[Settled] = []
    try:
        for name in nodes_to_build(view, state, names):
            node = view.node(name)
            decision, _ = state.decide(node)
            if decision.action != CACHED:
                return None
            output = state.outputs[name]
            check_contract(node, output.tables[""])
            settled.append((node, decision, output))
    except (BqError, NotRememberedError):  # a run says what is wrong, if it is
        return None
    return None if state.moved else settled


def _has_warehouse(view: OutlineView) -> bool:
    """Whether `warehouse.duckdb` is there, and no pointer of the store moved since it was found to be current."""
    try:
        noted = (view.artifacts / WAREHOUSE_STAMP).stat().st_mtime_ns
    except OSError:
        return False
    return (view.artifacts / WAREHOUSE).is_file() and view.store.environments.moved_at() <= noted


def _is_plain(options: RunOptions) -> bool:
    """Whether nothing is asked for but to build what changed."""
    plain = RunOptions(threads=options.threads)
    return replace(options, tests=False, fail_fast=False) == plain


def _result(node: Node, decision: Decision, tables: Mapping[str, Table]) -> NodeResult:
    counts = Counts(rows=tables[""].rows)
    return node_result(node, CACHED, decision.reasons[0].message, tables, counts=counts, seconds=0.0)


def _events(view: OutlineView, state: State, results: Sequence[NodeResult], began: float) -> list[Event]:
    names = [result.name for result in results]
    warned = [Warned(message, name) for name, message in stale_parents(view, state, names).items()]
    started = RunStarted(tuple((result.name, result.kind) for result in results))
    finished = RunFinished(tuple(results), round(time.monotonic() - began, 3))
    return [*warned, started, *map(NodeFinished, results), finished]
