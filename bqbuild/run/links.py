"""One node of a chain at work: the programs its rows go through, their stages, and the tables they are written to."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

import pyarrow as pa

from bqbuild.core.errors import BqError
from bqbuild.core.events import NodeProgress
from bqbuild.core.records import Node, NodeName, RowError, Table
from bqbuild.nodes import ROW_KINDS, row_kind
from bqbuild.nodes.base import BuildContext, RowProgram
from bqbuild.nodes.filter import streaming_rules
from bqbuild.nodes.filter_rows import filter_programs
from bqbuild.nodes.predicates import RowPredicate
from bqbuild.run.ledger import Ledger
from bqbuild.run.paid import connections_of
from bqbuild.run.rows import RowFilter
from bqbuild.run.stage import Limits, Stage, open_tasks
from bqbuild.run.whole import make_context
from bqbuild.store.base import TableWriter


@dataclass(slots=True)
class Link:
    """A node of a chain. Rows enter its first stage and leave its last; `sides` are writers of side tables."""

    node: Node
    programs: list[RowProgram]
    where: RowFilter | None
    ctx: BuildContext
    depth: int
    stages: list[Stage] = field(default_factory=list)
    writer: TableWriter | None = None
    sides: dict[str, TableWriter] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        """Of the rows that leave."""
        return self.programs[-1].schema

    @property
    def errors(self) -> list[RowError]:
        """The rows that could not be made so far."""
        return [error for stage in self.stages for error in stage.errors]

    @property
    def missing(self) -> int:
        """How many rows have no answer so far."""
        return sum(stage.missing for stage in self.stages)

    @property
    def failure(self) -> BqError | None:
        """What the node failed of."""
        return next((stage.failure for stage in self.stages if stage.failure is not None), None)

    def has_lost_all(self) -> bool:
        """Whether not one row that asked has an answer."""
        return 0 < self.missing == self.stages[0].seen

    def abort(self) -> None:
        """Forget what was written and not committed."""
        for writer in (self.writer, *self.sides.values()):
            if writer is not None:
                writer.abort()


def begins_chain(node: Node) -> bool:
    """Whether the node is built row by row: the LLM kinds, and filters that ask a judge before they compare rows."""
    if node.kind == "filter":
        return any(rule.judge for rule in node.spec.rules[: streaming_rules(node)])
    return node.kind in ROW_KINDS


def chain_from(ledger: Ledger, head: Node, barriers: Collection[NodeName] = ()) -> list[Node]:
    """The head and every node below it, in order, that can stream from it: row kinds and filters that this run builds.

    Nothing streams past a barrier, as what is below waits for its tests, or out of a filter that compares rows.
    """
    chain = [head]
    names = {head.name} if _hands_on(head, barriers) else set()
    for name in ledger.session.dag.order:
        node = ledger.session.node(name)
        if name in ledger.endings and node not in chain and _can_join(ledger, node, names, barriers):
            chain.append(node)
            if _hands_on(node, barriers):
                names.add(name)
    return chain


async def prepare_link(ledger: Ledger, node: Node, schema: pa.Schema, depth: int = 0) -> Link:
    """The node, ready for rows of `schema`, `depth` nodes below the head of its chain. Raises BqError."""
    ctx = make_context(ledger, node, ledger.session.store.scratch)
    # in a thread: a filter reads its benchmarks
    return await asyncio.to_thread(_prepared, ledger, node, schema, ctx, depth)


def _prepared(ledger: Ledger, node: Node, schema: pa.Schema, ctx: BuildContext, depth: int) -> Link:
    if node.kind == "filter":
        return Link(node, filter_programs(node, schema, _beside(ledger, node), ctx), None, ctx, depth)
    where = None
    if node.spec.where:
        where = RowFilter(RowPredicate(node.spec.where, node.places.get("where", node.where)), schema)
    return Link(node, [row_kind(node.kind).program(node, schema, ctx)], where, ctx, depth)


def open_link(ledger: Ledger, link: Link, reason: str, rows: int) -> None:
    """Begin the node: its writers, its stages, and its line on the display."""
    node, tables = link.node, ledger.session.store.tables
    ledger.start(node, reason, rows)
    ledger.tallies[node.name].depth = link.depth  # rows that are nearer the end go first: finished records come early
    link.writer = tables.writer(link.schema, ordered=True)
    link.sides = {name: tables.writer(schema, ordered=True) for name, schema in link.programs[-1].sides.items()}

    def progress(stage: Stage) -> None:
        ledger.emit(NodeProgress(node.name, stage.tally.counts(), link.stages[0].seen))

    for number, program in enumerate(link.programs):
        stage = Stage(
            node.name,
            program,
            ledger.desk.of(node.name),
            link.writer if number == len(link.programs) - 1 else None,
            limits=_limits(ledger, node),
            where=link.where if number == 0 else None,
            sides=link.sides,
            on_progress=progress,
        )
        stage.tally = ledger.tallies[node.name]
        if link.stages:
            link.stages[-1].children.append(stage)
        link.stages.append(stage)


def _limits(ledger: Ledger, node: Node) -> Limits:
    llms = ledger.session.project.target.llms
    most = max((open_tasks(llms[name]) for name in connections_of(node)), default=64)
    return Limits(
        max_error_rate=node.spec.max_error_rate,
        budget=node.spec.budget,
        fails_on_error=getattr(node.spec, "on_error", None) == "fail",
        open_tasks=most,
    )


def _hands_on(node: Node, barriers: Collection[NodeName]) -> bool:
    is_whole = node.kind == "filter" and streaming_rules(node) < len(node.spec.rules)
    return node.name not in barriers and not is_whole


def _can_join(ledger: Ledger, node: Node, names: Collection[NodeName], barriers: Collection[NodeName]) -> bool:
    """Whether rows of the chain enter the node, and what else it reads (benchmarks) is built and waits for no test."""
    if node.kind not in (*ROW_KINDS, "filter") or node.spec.from_ not in names:
        return False
    others = {ref.node for ref in node.refs} - {node.spec.from_}
    if others & {*barriers}:
        return False
    endings = [ledger.endings[name] for name in others if name in ledger.endings]
    return all(ending.done() and ending.result().is_usable for ending in endings) and not others & set(names)


def _beside(ledger: Ledger, node: Node) -> dict[str, Table]:
    """The tables that a node reads beside the rows that enter it."""
    found = {}
    for ref in node.refs:
        output = ledger.state.output(ref.node)
        if output is not None and ref.side in output.tables:
            found[str(ref)] = output.tables[ref.side]
    return found
