"""Builds a chain of row kinds as one pipeline: a row that leaves one node enters the next at once.

A node whose calls are all recorded is finished before anything below it starts, so that what is below may turn out
to have nothing to do. Where rows stream, cut-off is decided at the end: equal inputs reuse the old table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa

from bqbuild.core.errors import BqError, BuildError
from bqbuild.core.events import NodeProgress
from bqbuild.core.records import Node, NodeName, Table
from bqbuild.nodes import ROW_KINDS, row_kind
from bqbuild.nodes.base import RowProgram
from bqbuild.nodes.errors import write_errors
from bqbuild.nodes.predicates import RowPredicate
from bqbuild.plan.rebuild import CACHED, Decision
from bqbuild.run.contracts import check_contract
from bqbuild.run.ledger import Ledger
from bqbuild.run.rows import RowFilter, is_all_recorded, row_groups
from bqbuild.run.stage import Limits, Stage
from bqbuild.run.state import Output
from bqbuild.run.whole import make_context
from bqbuild.store.base import TableWriter
from bqbuild.store.types import schema_of


@dataclass(slots=True)
class _Link:
    """One node of the chain: its stage, where its rows go, and its place in the tree."""

    node: Node
    program: RowProgram
    filter: RowFilter | None
    stage: Stage | None = None
    writer: TableWriter | None = None


def chain_from(ledger: Ledger, head: Node, barriers: Collection[NodeName] = ()) -> list[Node]:
    """The head and every node below it, in order, that can stream from it: row kinds that this run builds.

    Nothing streams past a barrier: what is below waits for its tests.
    """
    chain = [head]
    names = {head.name} - set(barriers)
    for name in ledger.session.dag.order:
        node = ledger.session.node(name)
        if name in ledger.endings and node.kind in ROW_KINDS and node.spec.from_ in names and node not in chain:
            chain.append(node)
            if name not in barriers:
                names.add(name)
    return chain


async def build_chain(ledger: Ledger, chain: list[Node], decision: Decision) -> None:
    """Build the chain, or its head alone where no call of it is new."""
    head = chain[0]
    table = _input_of(ledger, head)
    reason = decision.reasons[0].message
    links: dict[NodeName, _Link] = {}
    first = _prepare(ledger, head, _schema(table))
    tables = ledger.session.store.tables
    recorded = await asyncio.to_thread(
        is_all_recorded, first.program, row_groups(tables.batches(table)), ledger.desk.of(head.name), first.filter
    )
    links[head.name] = first
    if not recorded:
        for node in chain[1:]:
            links[node.name] = _prepare(ledger, node, links[NodeName(node.spec.from_)].program.schema)
    for link in links.values():
        _open(ledger, link, reason if link is first else f"rows stream from `{link.node.spec.from_}`", table.rows)
    for link in list(links.values())[1:]:
        _stage(links[NodeName(link.node.spec.from_)]).children.append(_stage(link))
    try:
        for group in row_groups(tables.batches(table)):
            await _stage(first).feed(group)
        await _stage(first).close()
        for ending in await asyncio.to_thread(_settle_all, ledger, links, reason):
            ending.enter(ledger)
    finally:
        for link in links.values():
            if link.writer is not None:
                link.writer.abort()


def _input_of(ledger: Ledger, node: Node) -> Table:
    parents = ledger.state.parents(node)
    if parents is None:
        raise BuildError(f"`{node.name}` has parents that are not built")
    return parents[node.spec.from_]


def _schema(table: Table) -> pa.Schema:
    return schema_of(table.columns)


def _prepare(ledger: Ledger, node: Node, schema: pa.Schema) -> _Link:
    ctx = make_context(ledger, node, ledger.session.store.scratch)
    where = None
    if node.spec.where:
        where = RowFilter(RowPredicate(node.spec.where, node.places.get("where", node.where)), schema)
    return _Link(node, row_kind(node.kind).program(node, schema, ctx), where)


def _open(ledger: Ledger, link: _Link, reason: str, rows: int) -> None:
    """Begin the node: its writer, its stage, and its line on the display."""
    node = link.node
    ledger.start(node, reason, rows)
    link.writer = ledger.session.store.tables.writer(link.program.schema, ordered=True)
    llm = ledger.session.project.target.llms[node.spec.llm]
    limits = Limits(
        max_error_rate=node.spec.max_error_rate,
        budget=node.spec.budget,
        fails_on_error=node.spec.on_error == "fail",
        open_tasks=max(64, 4 * llm.max_concurrency),
    )

    def progress(stage: Stage) -> None:
        ledger.emit(NodeProgress(node.name, stage.tally.counts(), stage.seen))

    desk = ledger.desk.of(node.name)
    link.stage = Stage(
        node.name, link.program, desk, link.writer, limits=limits, where=link.filter, on_progress=progress
    )
    link.stage.tally = ledger.tallies[node.name]


def _stage(link: _Link) -> Stage:
    assert link.stage is not None  # opened before use
    return link.stage


@dataclass(frozen=True, slots=True)
class _End:
    """How one node of the chain ended, to be entered in the books by the event loop's thread, all at once."""

    node: Node
    status: str
    reason: str
    output: Output | None = None
    missing: int = 0

    def enter(self, ledger: Ledger) -> None:
        if self.status == "success" and self.output is not None:
            ledger.finish_built(self.node, self.reason, self.output, self.missing)
        else:
            ledger.finish(self.node, self.status, self.reason, self.output)


def _settle_all(ledger: Ledger, links: dict[NodeName, _Link], reason: str) -> list[_End]:
    """Commit the nodes of the chain from the top; what is below a failed one is skipped."""
    endings: list[_End] = []
    failed: set[NodeName] = set()
    for name, link in links.items():
        parent = NodeName(link.node.spec.from_)
        if parent in failed:
            failed.add(name)
            endings.append(_End(link.node, "skipped", f"`{parent}` failed"))
            continue
        try:
            endings.append(_settle(ledger, link, reason))
        except BqError as error:
            failed.add(name)
            endings.append(_End(link.node, "error", str(error)))
    return endings


def _settle(ledger: Ledger, link: _Link, reason: str) -> _End:
    """Commit one node's table, or reuse the one it had where what it read has not changed."""
    stage, node = _stage(link), link.node
    assert link.writer is not None
    if stage.failure is not None:
        raise stage.failure
    if stage.missing and stage.missing == stage.seen:
        first = next(error for error in stage.errors if not error.answered)
        raise BuildError(f"`{node.name}`: no row has an answer: {first.message}")
    decision, inputs = ledger.state.decide(node)
    if decision.action == CACHED:
        return _End(node, "cached", decision.reasons[0].message, ledger.state.outputs[node.name])
    if decision.key is None or inputs is None:
        raise BuildError(f"`{node.name}` has parents that are not built")
    table = link.writer.commit()
    check_contract(node, table)
    link.writer = None
    # written where it is empty too: models and people may read it before anything has gone wrong
    errors = write_errors(ledger.session.store.tables, stage.errors)
    output = Output(decision.key, {"": table, "errors": errors})
    ledger.record(node, decision.key, inputs, output, stage.missing)
    return _End(node, "success", reason, output, stage.missing)
