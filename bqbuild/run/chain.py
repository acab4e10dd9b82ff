"""Builds a chain of row kinds as one pipeline: a row that leaves one node enters the next at once.

A node whose calls are all recorded is finished before anything below it starts, so that what is below may turn out
to have nothing to do. Where rows stream, cut-off is decided at the end: equal inputs reuse the old table.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bqbuild.core.errors import BqError, BuildError
from bqbuild.core.records import Node, NodeName, Table
from bqbuild.nodes.base import Built
from bqbuild.nodes.errors import write_errors
from bqbuild.nodes.filter import FilterKind, Streamed, streaming_rules
from bqbuild.plan.rebuild import CACHED, Decision
from bqbuild.run.contracts import check_contract
from bqbuild.run.ledger import Ledger
from bqbuild.run.links import Link, open_link, prepare_link
from bqbuild.run.rows import is_all_recorded, row_groups
from bqbuild.run.stage import no_answer
from bqbuild.run.state import Output
from bqbuild.store.types import schema_of


async def build_chain(ledger: Ledger, chain: list[Node], decision: Decision) -> None:
    """Build the chain, or its head alone where no call of it is new."""
    head = chain[0]
    table = _input_of(ledger, head)
    reason = decision.reasons[0].message
    tables = ledger.session.store.tables
    first = await prepare_link(ledger, head, schema_of(table.columns))
    recorded = await asyncio.to_thread(
        is_all_recorded, first.programs[0], row_groups(tables.batches(table)), ledger.desk.of(head.name), first.where
    )
    links = {head.name: first}
    if not recorded:
        for node in chain[1:]:
            above = links[NodeName(node.spec.from_)]
            links[node.name] = await prepare_link(ledger, node, above.schema, above.depth + 1)
    try:
        for link in links.values():
            open_link(
                ledger, link, reason if link is first else f"rows stream from `{link.node.spec.from_}`", table.rows
            )
        for link in list(links.values())[1:]:
            links[NodeName(link.node.spec.from_)].stages[-1].children.append(link.stages[0])
        for group in row_groups(tables.batches(table)):
            await first.stages[0].feed(group)
        await first.stages[0].close()
        for ending in await asyncio.to_thread(_settle_all, ledger, links, reason):
            ending.enter(ledger)
    finally:
        for link in links.values():
            link.abort()


def _input_of(ledger: Ledger, node: Node) -> Table:
    parents = ledger.state.parents(node)
    if parents is None:
        raise BuildError(f"`{node.name}` has parents that are not built")
    return parents[node.spec.from_]


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


def _settle_all(ledger: Ledger, links: dict[NodeName, Link], reason: str) -> list[_End]:
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


def _settle(ledger: Ledger, link: Link, reason: str) -> _End:
    """Commit one node's tables, or reuse those it had where what it read has not changed."""
    node = link.node
    if link.failure is not None:
        raise link.failure
    if link.has_lost_all():
        raise no_answer(node, link.errors)
    decision, inputs = ledger.state.decide(node)
    if decision.action == CACHED:
        return _End(node, "cached", decision.reasons[0].message, ledger.state.outputs[node.name])
    if decision.key is None or inputs is None:
        raise BuildError(f"`{node.name}` has parents that are not built")
    built = _built(ledger, link)
    check_contract(node, built.table)
    output = Output(decision.key, {"": built.table, **built.sides})
    ledger.record(node, decision.key, inputs, output, built.incomplete)
    return _End(node, "success", reason, output, built.incomplete)


def _built(ledger: Ledger, link: Link) -> Built:
    """Commit what was written. A filter that compares rows has its last rules still to apply."""
    node, tables = link.node, ledger.session.store.tables
    assert link.writer is not None  # the link was opened
    table = link.writer.commit()
    sides = {name: writer.commit() for name, writer in link.sides.items()}
    if node.kind == "filter" and streaming_rules(node) < len(node.spec.rules):
        streamed = Streamed(table, sides["rejects"], link.errors, link.missing)
        return FilterKind().finish(node, streamed, ledger.state.parents(node) or {}, link.ctx)
    # written where it is empty too: models and people may read it before anything has gone wrong
    return Built(table, {**sides, "errors": write_errors(tables, link.errors)}, link.missing)
