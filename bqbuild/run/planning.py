"""Makes the plan: builds what is free, renders what is not, and says what would run and why. Moves no pointer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from bqbuild.core.errors import BuildError
from bqbuild.core.records import LINEAGE_COLUMNS, CallKey, Node, NodeName, Table
from bqbuild.llm.client import Client
from bqbuild.nodes import ROW_KINDS, row_kind
from bqbuild.nodes.conversation import open_conversation
from bqbuild.nodes.predicates import RowPredicate
from bqbuild.plan.bounds import most_output_tokens
from bqbuild.plan.changes import Reason
from bqbuild.plan.plan import UNKNOWN, Amount, Plan, Step, total
from bqbuild.plan.rebuild import CACHED, Decision
from bqbuild.plan.why import Why
from bqbuild.run.batches import batch_reasons
from bqbuild.run.context import bare_context
from bqbuild.run.desk import Desk
from bqbuild.run.execute import run
from bqbuild.run.forecast import (
    Expected,
    Widths,
    bound_judge,
    bound_rows,
    forecast_judge,
    forecast_rows,
)
from bqbuild.run.judging import replay_judges
from bqbuild.run.options import RunOptions
from bqbuild.run.paid import is_paid
from bqbuild.run.renewal import planned_refresh
from bqbuild.run.replay import replay
from bqbuild.run.rowchanges import explain_rows
from bqbuild.run.rows import RowFilter, row_groups
from bqbuild.run.scope import nodes_to_build, stale_parents
from bqbuild.run.session import Session
from bqbuild.run.state import State
from bqbuild.store.types import schema_of


@dataclass(slots=True)
class _Walk:
    """The walk down the graph: what is expected of every node so far."""

    session: Session
    state: State
    desk: Desk
    expected: dict[NodeName, Expected] = field(default_factory=dict)
    is_current: dict[NodeName, bool] = field(default_factory=dict)
    renamed: set[NodeName] = field(default_factory=set)
    asked: set[CallKey] = field(default_factory=set)
    why: dict[NodeName, Callable[[], Why]] = field(default_factory=dict)


def plan(
    session: Session,
    names: Sequence[NodeName],
    *,
    fast: bool = False,
    full_refresh: bool = False,
    refresh_calls: bool = False,
) -> Plan:
    """What `run` would do with `names`. With `fast` nothing is built, and figures are bounds."""
    made, _ = plan_and_why(session, names, fast=fast, full_refresh=full_refresh, refresh_calls=refresh_calls)
    return made


def plan_and_why(
    session: Session,
    names: Sequence[NodeName],
    *,
    fast: bool,
    full_refresh: bool,
    refresh_calls: bool,
    warn: Callable[[str], None] = lambda message: None,
) -> tuple[Plan, Mapping[NodeName, Callable[[], Why]]]:
    """The plan, and for each model of it what takes its key apart when it is called, before the session is closed."""
    for name in names:
        session.recipe(name)  # a mistake that only shows now is one of the project's, not of building a node
    if not fast:
        build_free_nodes(session, names)
    renewal = planned_refresh(session, names) if refresh_calls else None
    state = State(session, pointers=session.pointers(), renewal=renewal)
    state.is_forced = frozenset(names) if full_refresh else frozenset()
    if not fast:
        state.explain_rows = partial(explain_rows, state)
    for message in stale_parents(session, state, nodes_to_build(session, state, names)).values():
        warn(message)
    return asyncio.run(_plan(session, names, state))


def build_free_nodes(session: Session, names: Sequence[NodeName]) -> None:
    """Sources, SQL, Python and free filters above the first nodes that cost something."""
    results = run(session, names, RunOptions(free_only=True, publish=False))
    failed = [result for result in results if result.status == "error"]
    if failed:
        raise BuildError(failed[0].reason)


async def _plan(
    session: Session, names: Sequence[NodeName], state: State
) -> tuple[Plan, Mapping[NodeName, Callable[[], Why]]]:
    llms = session.project.target.llms
    client = Client(llms, session.store.calls, warn=lambda message: None)
    walk = _Walk(session, state, Desk(client, session.store.calls, lambda name: llms[name], state.renewal))
    steps = []
    try:
        for name in nodes_to_build(session, state, names):
            step = _step(walk, session.node(name))
            if session.node(name).kind != "source":
                steps.append(step)
    finally:
        await client.close()
    return Plan(session.environment, tuple(steps)), walk.why


def _step(walk: _Walk, node: Node) -> Step:
    unbuilt = [name for name in walk.session.dag.parents[node.name] if not walk.is_current.get(name, True)]
    decision, inputs = walk.state.decide(node, unbuilt=unbuilt)
    walk.why[node.name] = partial(walk.state.why, node, decision, inputs)
    is_repeated = decision.reasons[0].code == "forced" and _gives_the_same(walk, node, unbuilt)
    reasons = (*decision.reasons, *_advice(walk, node, decision))
    output = walk.state.outputs.get(node.name)
    is_current = decision.trace is not None and output is not None
    walk.is_current[node.name] = is_current or is_repeated
    if is_current and output is not None:
        expected = Expected(rows=Amount(output.tables[""].rows), widths=_measured(walk, output.tables[""]))
    else:
        expected = _expect(walk, node, is_known=not unbuilt and decision.key is not None)
    walk.expected[node.name] = expected
    return Step(
        name=node.name,
        kind=node.kind,
        action=decision.action,
        reasons=(*reasons, *batch_reasons(walk.session, node, expected.new_calls)),
        rows=expected.rows,
        new_calls=expected.new_calls,
        cached_calls=expected.cached_calls,
        input_tokens=expected.input_tokens,
        output_tokens=expected.output_tokens,
        cost=expected.cost,
    )


def _gives_the_same(walk: _Walk, node: Node, unbuilt: Sequence[NodeName]) -> bool:
    """Whether a node that is built again for no other reason than that makes the tables that it has."""
    decision, _ = walk.state.decide(node, unbuilt=unbuilt, forces=False)
    return decision.action == CACHED and not getattr(node.spec, "volatile", False)


def _advice(walk: _Walk, node: Node, decision: Decision) -> Iterator[Reason]:
    """A source without `key` whose columns changed has given all its rows new ids: what reads it is told."""
    if node.kind == "source" and not node.spec.key and any(reason.code == "lock" for reason in decision.reasons):
        walk.renamed.add(node.name)
    if decision.action == CACHED:
        return
    for parent in walk.session.dag.parents[node.name]:
        if parent in walk.renamed:
            source = walk.session.node(parent)
            message = f"`{parent}` has no `key`, so that its new columns gave every row a new id: give it a `key`"
            yield Reason("advice", message, source.where)


def _expect(walk: _Walk, node: Node, *, is_known: bool) -> Expected:
    if node.kind in ROW_KINDS and is_known:
        return _exact(walk, node)
    parents = [walk.expected.get(ref.node) or _from_pointer(walk, ref.node) for ref in node.refs]
    widths: dict[str, float | None] = {}
    for parent in parents:
        widths.update(parent.widths)
    if node.kind in ROW_KINDS:
        source = walk.expected.get(NodeName(node.spec.from_)) or _from_pointer(walk, NodeName(node.spec.from_))
        expected = bound_rows(node, walk.session.project, source.rows, widths)
        expected.widths = widths | _made_widths(walk, node)
        return expected
    if node.kind == "filter" and is_known and is_paid(node):
        return _exact_filter(walk, node, widths)
    if node.kind == "filter":
        source = walk.expected.get(NodeName(node.spec.from_)) or _from_pointer(walk, NodeName(node.spec.from_))
        return _of_filter(walk, node, source, widths)
    return Expected(rows=_bounded_rows(node, parents), widths=_sql_widths(walk, node, parents))


def _exact(walk: _Walk, node: Node) -> Expected:
    """The node's input is built: render it."""
    table = (walk.state.parents(node) or {})[node.spec.from_]
    schema = schema_of(table.columns)
    program = row_kind(node.kind).program(node, schema, bare_context(walk.session, node))
    where = None
    if node.spec.where:
        where = RowFilter(RowPredicate(node.spec.where, node.places.get("where", node.where)), schema)
    groups = row_groups(walk.session.store.tables.batches(table))
    expected = forecast_rows(
        node, walk.session.project, replay(program, groups, walk.desk.of(node.name), where=where, elsewhere=walk.asked)
    )
    expected.widths = dict(_measured(walk, table)) | _made_widths(walk, node)
    return expected


def _exact_filter(walk: _Walk, node: Node, widths: Widths) -> Expected:
    """The filter's input is built: apply its rules as far as its judges' verdicts are recorded."""
    parents = walk.state.parents(node) or {}
    known, later, passing = replay_judges(walk.session, node, parents, walk.desk.of(node.name), walk.asked)
    project = walk.session.project
    most = Amount(parents[node.spec.from_].rows, True)
    asked = [forecast_judge(judge, project, found) for judge, found in known]
    asked += [bound_judge(node, judge, project, most, widths) for judge in later]
    return _together(asked, most if passing is None else Amount(passing), widths)


def _of_filter(walk: _Walk, node: Node, source: Expected, widths: Widths) -> Expected:
    rows = Amount(source.rows.value, True) if source.rows.value is not None else UNKNOWN
    judges = [rule.judge for rule in node.spec.rules if rule.judge is not None]
    return _together([bound_judge(node, judge, walk.session.project, rows, widths) for judge in judges], rows, widths)


def _together(judges: Sequence[Expected], rows: Amount, widths: Widths) -> Expected:
    return Expected(
        rows=rows,
        new_calls=total(judge.new_calls for judge in judges),
        cached_calls=total(judge.cached_calls for judge in judges),
        input_tokens=total(judge.input_tokens for judge in judges),
        output_tokens=total(judge.output_tokens for judge in judges),
        cost=total(judge.cost for judge in judges),
        widths=widths,
    )


def _from_pointer(walk: _Walk, name: NodeName) -> Expected:
    output = walk.state.output(name)
    if output is None:
        return Expected()
    return Expected(rows=Amount(output.tables[""].rows), widths=_measured(walk, output.tables[""]))


def _bounded_rows(node: Node, parents: Sequence[Expected]) -> Amount:
    values = [parent.rows.value for parent in parents]
    if node.kind == "mix":
        limit = node.spec.rows
        most = None if None in values else sum(value or 0 for value in values) * node.spec.repeat
        return (
            UNKNOWN if limit is None and most is None else Amount(min(x for x in (limit, most) if x is not None), True)
        )
    known = [value for value in values if value is not None]
    if node.kind != "sql" or len(known) < len(values):
        return UNKNOWN
    most = _most_rows(node, known)
    return UNKNOWN if most is None else Amount(most, True)


def _most_rows(node: Node, rows: Sequence[float]) -> float | None:
    """The most rows that a SQL model can make of its parents'; None where it joins or unnests."""
    text = node.body.lower()
    if any(word in text for word in (" join ", "unnest", "generate_series", "range(", ", lateral")):
        return None
    times = [max(1, text.count(f'"{str(ref).lower()}"')) for ref in node.refs]
    return sum(count * number for count, number in zip(times, rows, strict=True))


def _sql_widths(walk: _Walk, node: Node, parents: Sequence[Expected]) -> Widths:
    """A column that a parent has by the same name is taken to be no longer than there; any other column, no longer
    than all columns of the parents together."""
    parts = [width for parent in parents for width in parent.widths.values()]
    most = None if None in parts else sum(width or 0 for width in parts)
    widths: dict[str, float | None] = {}
    for name in walk.session.columns.get(node.name) or ():
        same = [parent.widths[name] for parent in parents if name in parent.widths]
        widths[name] = most if not same or None in same else max(width or 0 for width in same)
    return widths


def _made_widths(walk: _Walk, node: Node) -> dict[str, float | None]:
    params = open_conversation(walk.session.project, node.spec).params
    return dict.fromkeys(node.spec.output.columns, most_output_tokens(params))


def _measured(walk: _Walk, table: Table) -> Widths:
    """The longest value of each text column, in UTF-8 bytes: no tokenizer makes more tokens of it."""
    widths: dict[str, float | None] = {}
    names = [column.name for column in table.columns if column.name not in LINEAGE_COLUMNS]
    for batch in walk.session.store.tables.batches(table, names):
        for name, column in zip(names, batch.columns, strict=True):
            is_text = pa.types.is_string(column.type)
            longest = pc.max(pc.binary_length(column)).as_py() if is_text else 24
            widths[name] = max(widths.get(name) or 0, longest or 0)
    return widths
