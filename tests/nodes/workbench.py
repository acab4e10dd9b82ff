"""A real store, a real project, and what a table kind needs to be built by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bqbuild.config.project import Project, load_project
from bqbuild.config.specs import SPECS
from bqbuild.core.errors import ProviderError, Where
from bqbuild.core.events import Event, Warned
from bqbuild.core.ids import row_id
from bqbuild.core.records import CALLS, ID, PARENT, ROOTS, CallKey, ChatReply, ChatRequest, Node, NodeName, RowError
from bqbuild.core.records import Table as StoredTable
from bqbuild.nodes.base import Answer, BuildContext, Built, RowProgram, RowsDone, TableKind, Task
from bqbuild.store import open_store

PROJECT = {
    "project/bqbuild.yml": "name: bench\n",
    "project/profiles.yml": """
        default: dev
        targets:
          dev:
            llms:
              critic: {provider: openai, model: mock, base_url: 'http://127.0.0.1:9/v1'}
        """,
    "prompts/judge.md": "Is this a good question? {{ question }}\n",
}

LINEAGE = {ID: pa.string(), PARENT: pa.string(), CALLS: pa.list_(pa.string()), ROOTS: pa.list_(pa.string())}

Reply = Callable[[ChatRequest], str]


class Workbench:
    """Tables in, a node built, tables out. `warnings` are those of the last build."""

    def __init__(self, root: Path) -> None:
        self.store = open_store(str(root / "store"))
        self.project: Project = load_project(_written(root / "project", PROJECT))
        self.scratch = root / "scratch"
        self.warnings: list[str] = []
        self.asked: list[ChatRequest] = []

    def table(
        self, rows: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType] | None = None, *, batch: int = 1000
    ) -> StoredTable:
        """Store rows; those without ids or roots of their own get some, made of their place."""
        full = [
            {ID: f"id{number:06d}", ROOTS: [f"root{number:06d}"], PARENT: None, CALLS: [], **row}
            for number, row in enumerate(rows)
        ]
        names = list(dict.fromkeys(name for row in rows for name in row if name not in LINEAGE)) or list(types or {})
        found = {
            name: pa.array([row.get(name) for row in full[:1000]]).type for name in names if name not in (types or {})
        }
        schema = pa.schema([*((name, (types or {}).get(name) or found[name]) for name in names), *LINEAGE.items()])
        writer = self.store.tables.writer(schema)
        for start in range(0, len(full), batch):
            writer.write(pa.RecordBatch.from_pylist(full[start : start + batch], schema=schema))
        return writer.commit()

    def rows(self, table: StoredTable) -> list[dict[str, Any]]:
        """The rows of a table."""
        return [row for batch in self.store.tables.batches(table) for row in batch.to_pylist()]

    def build(
        self,
        kind: TableKind,
        declared: Mapping[str, Any],
        inputs: Mapping[str, StoredTable],
        reply: Reply | None = None,
    ) -> Built:
        """Build a node from its declaration. `reply` answers calls; it may raise ProviderError."""
        self.warnings = []
        self.asked = []
        spec = SPECS[declared["kind"]].model_validate(declared)
        where = Where("models/m.yml", 3)
        node = Node(NodeName(spec.name), declared["kind"], spec, (), where, "models/m.yml", ("bench", spec.name))
        context = BuildContext(
            node=node.name,
            project=self.project,
            store=self.store,
            scratch=self.scratch,
            emit=self._listen,
            run_rows=lambda program, batches: self._run_rows(program, batches, reply),
        )
        return kind.build(node, inputs, context)

    def _listen(self, event: Event) -> None:
        if isinstance(event, Warned):
            self.warnings.append(event.message)

    def _run_rows(self, program: RowProgram, batches: Iterable[pa.RecordBatch], reply: Reply | None) -> RowsDone:
        rows: list[dict[str, Any]] = []
        errors: list[RowError] = []
        for batch in batches:
            for tasks in program.tasks(batch.to_pylist()):
                for task in tasks:
                    self._run_task(task, reply, rows, errors)
        missing = sum(not error.answered for error in errors)
        return RowsDone(pa.Table.from_pylist(rows, schema=program.schema), errors, missing)

    def _run_task(self, task: Task, reply: Reply | None, rows: list[dict[str, Any]], errors: list[RowError]) -> None:
        assert reply is not None, "no calls were expected"
        try:
            asks = next(task.steps)
            while True:
                self.asked += [ask.request for ask in asks]
                asks = task.steps.send([_answer(ask.request, reply) for ask in asks])
        except StopIteration as stop:
            rows += stop.value.rows
            errors += stop.value.errors
        except ProviderError as error:
            errors.append(RowError(task.row_id, task.cell, error.kind, error.message, answered=False))


def _answer(request: ChatRequest, reply: Reply) -> Answer:
    key = CallKey(row_id("call", [message.content for message in request.messages]))
    return Answer(key, ChatReply(text=reply(request)))


def _written(root: Path, files: Mapping[str, str]) -> Path:
    from textwrap import dedent

    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
    return root
