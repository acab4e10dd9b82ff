"""What the judges of a filter will ask, where its input is known: its rules are applied up to the first judge that
has something new to ask. Nothing is sent; the tables that a filter with nothing new to ask makes are its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pyarrow as pa

from bqbuild.config.specs import JudgeRule
from bqbuild.core.errors import BqError
from bqbuild.core.records import CallKey, Node, RowError, Table
from bqbuild.nodes import table_kind
from bqbuild.nodes.base import Made, RowProgram, RowsDone
from bqbuild.run.context import bare_context
from bqbuild.run.desk import Desk
from bqbuild.run.replay import Replay, replay
from bqbuild.run.rows import row_groups
from bqbuild.run.session import Session


class _Unanswered(BqError):
    """A judge has something new to ask: what comes after it cannot be known."""


def replay_judges(
    session: Session,
    node: Node,
    parents: dict[str, Table],
    desk: Desk,
    elsewhere: set[CallKey],
    on_made: Callable[[Made], None] = lambda made: None,
) -> tuple[list[tuple[JudgeRule, Replay]], list[JudgeRule], int | None]:
    """The judges that could be replayed, in order; those that could not; and the rows that pass, where none is left.
    `on_made` hears of every verdict, and of every answer that is none."""
    known: list[Replay] = []

    def run_rows(program: RowProgram, batches: Iterable[pa.RecordBatch]) -> RowsDone:
        made: list[Made] = []
        found = replay(program, row_groups(batches), desk, elsewhere=elsewhere, on_made=made.append)
        known.append(found)
        for one in made:
            on_made(one)
        if found.stalled:
            raise _Unanswered("a call is not recorded")
        rows = program.settle([row for one in made for row in one.rows]).rows
        errors: list[RowError] = [error for one in made for error in one.errors]
        return RowsDone(pa.Table.from_pylist(rows, schema=program.schema), errors, 0)

    judges = [rule.judge for rule in node.spec.rules if rule.judge is not None]
    rows: int | None = None
    try:
        ctx = replace(bare_context(session, node), run_rows=run_rows)
        rows = table_kind(node.kind).build(node, parents, ctx).table.rows
    except _Unanswered:
        pass
    return list(zip(judges, known, strict=False)), judges[len(known) :], rows
