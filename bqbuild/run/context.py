"""The context of a kind outside a run: for planning and for looking at prompts."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from bqbuild.core.errors import BuildError
from bqbuild.core.records import Node
from bqbuild.nodes.base import BuildContext, RowProgram, RowsDone
from bqbuild.run.session import Session


def bare_context(session: Session, node: Node) -> BuildContext:
    """A context that can prepare programs but asks no LLM and tells nobody."""

    def refuse(program: RowProgram, batches: Iterable[pa.RecordBatch]) -> RowsDone:
        raise BuildError(f"`{node.name}` would ask an LLM, which planning never does")

    return BuildContext(
        node=node.name,
        project=session.project,
        store=session.store,
        scratch=session.store.scratch,
        emit=lambda event: None,
        run_rows=refuse,
    )
