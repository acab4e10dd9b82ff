"""Builds one node of a table kind: its inputs are whole, its work runs in a thread."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from bqbuild.core.errors import BuildError
from bqbuild.core.events import Event, NodeProgress
from bqbuild.core.records import Node, RowError
from bqbuild.graph.build_key import build_key
from bqbuild.nodes import table_kind
from bqbuild.nodes.base import BuildContext, RowProgram, RowsDone
from bqbuild.plan.rebuild import Decision
from bqbuild.run.contracts import check_contract
from bqbuild.run.inputs import read_inputs
from bqbuild.run.ledger import Ledger
from bqbuild.run.paid import connections_of
from bqbuild.run.rows import row_groups
from bqbuild.run.stage import Limits, Stage, no_answer, open_tasks
from bqbuild.run.state import Output
from bqbuild.store.base import ORDER


async def build_table(ledger: Ledger, node: Node, decision: Decision) -> None:
    """Build the node and record it."""
    parents = ledger.state.parents(node)
    if parents is None or decision.key is None:
        raise BuildError(f"`{node.name}` has parents that are not built")
    reason = decision.reasons[0].message
    ledger.start(node, reason, max((table.rows for table in parents.values()), default=None))
    scratch = ledger.session.store.scratch / decision.key
    ctx = make_context(ledger, node, scratch)
    built = await asyncio.to_thread(table_kind(node.kind).build, node, parents, ctx)
    check_contract(node, built.table)
    # read again: a source's build may have extended the lock, which is part of what it reads
    inputs = await asyncio.to_thread(read_inputs, ledger.session, node, parents)
    key = build_key(ledger.session.recipe(node.name), inputs)
    output = Output(key, {"": built.table, **built.sides})
    await asyncio.to_thread(ledger.record, node, key, inputs, output, built.incomplete)
    shutil.rmtree(scratch, ignore_errors=True)
    ledger.finish_built(node, reason, output, built.incomplete)


def make_context(ledger: Ledger, node: Node, scratch: Path) -> BuildContext:
    """What a kind may use while it builds `node`. The scratch folder is the build key's own: it survives a kill."""
    scratch.mkdir(parents=True, exist_ok=True)
    loop = asyncio.get_running_loop()

    def emit(event: Event) -> None:
        loop.call_soon_threadsafe(ledger.emit, event)

    def run_rows(program: RowProgram, batches: Iterable[pa.RecordBatch]) -> RowsDone:
        return asyncio.run_coroutine_threadsafe(_judge(ledger, node, program, batches), loop).result()

    return BuildContext(
        node=node.name,
        project=ledger.session.project,
        store=ledger.session.store,
        scratch=scratch,
        emit=emit,
        run_rows=run_rows,
    )


class _Collected:
    """A sink that keeps the rows: verdicts are small."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.batches: list[pa.Table] = []

    def write(self, data: pa.RecordBatch | pa.Table) -> None:
        """Keep the rows."""
        table = pa.Table.from_batches([data]) if isinstance(data, pa.RecordBatch) else data
        self.batches.append(table.drop_columns([ORDER]))

    def table(self) -> pa.Table:
        """All rows kept so far."""
        return pa.concat_tables(self.batches) if self.batches else self.schema.empty_table()


async def _judge(ledger: Ledger, node: Node, program: RowProgram, batches: Iterable[pa.RecordBatch]) -> RowsDone:
    sink = _Collected(program.schema)
    llms = ledger.session.project.target.llms
    most = max(open_tasks(llms[name]) for name in connections_of(node))
    limits = Limits(node.spec.max_error_rate, node.spec.budget, open_tasks=most)

    def progress(stage: Stage) -> None:
        ledger.emit(NodeProgress(node.name, stage.tally.counts(), stage.seen))

    stage = Stage(node.name, program, ledger.desk.of(node.name), sink, limits=limits, on_progress=progress)
    stage.tally = ledger.tallies[node.name]
    for group in row_groups(batches):
        await stage.feed(group)
    await stage.close()
    if stage.failure is not None:
        raise stage.failure
    if stage.has_lost_all():
        raise no_answer(node, stage.errors)
    errors: list[RowError] = stage.errors
    return RowsDone(sink.table(), errors, stage.missing)
