"""Builds one node of a real project in a real store, without the engine around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from bqbuild.config.project import Project, load_project
from bqbuild.core.events import Event
from bqbuild.core.ids import row_id
from bqbuild.core.records import ID, ROOTS, NodeName, Table
from bqbuild.nodes import table_kind
from bqbuild.nodes.base import BuildContext, Built, RowProgram, RowsDone
from bqbuild.store import open_store
from bqbuild.store.base import Store

PROJECT = {
    "project/bqbuild.yml": "name: tiny\n",
    "project/profiles.yml": "default: dev\ntargets:\n  dev: {store: .bqbuild}\n",
}


@dataclass
class Bench:
    """A project, its store, and what the nodes said."""

    project: Project
    store: Store
    events: list[Event] = field(default_factory=list)

    def write(self, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> Table:
        """A stored table of these rows, each with an id and itself as its root."""
        ids = [row_id("test", number) for number in range(len(rows))]
        table = pa.Table.from_pylist(rows, schema=schema)
        table = table.append_column(ID, pa.array(ids, pa.string()))
        table = table.append_column(ROOTS, pa.array([[each] for each in ids], pa.list_(pa.string())))
        writer = self.store.tables.writer(table.schema)
        writer.write(table)
        return writer.commit()

    def build(
        self, name: str, inputs: Mapping[str, Table], on_event: Callable[[Event], None] = lambda event: None
    ) -> Built:
        """Build the node of that name."""
        node = self.project.nodes[NodeName(name)]

        def emit(event: Event) -> None:
            self.events.append(event)
            on_event(event)

        scratch = self.store.scratch / f"key-of-{name}"
        scratch.mkdir(parents=True, exist_ok=True)
        ctx = BuildContext(node.name, self.project, self.store, scratch, emit, _no_rows)
        return table_kind(node.kind).build(node, inputs, ctx)

    def rows(self, table: Table) -> list[dict[str, Any]]:
        """All rows of a table."""
        return [row for batch in self.store.tables.batches(table) for row in batch.to_pylist()]


@contextmanager
def open_bench(folder: Path, files: Mapping[str, str]) -> Iterator[Bench]:
    """A project of these files in `folder`, with a store beside it."""
    for name, text in {**PROJECT, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    store = open_store(str(folder / "store"))
    try:
        yield Bench(load_project(folder), store)
    finally:
        store.close()


def _no_rows(program: RowProgram, batches: Iterable[pa.RecordBatch]) -> RowsDone:
    raise AssertionError("this kind asks no LLM")
