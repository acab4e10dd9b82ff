"""What a model becomes before it runs: its SQL after Jinja, its prompts rendered over rows that are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bqbuild.core.errors import Where
from bqbuild.core.records import Message, Node, NodeName, Table
from bqbuild.nodes import ROW_KINDS, row_kind
from bqbuild.nodes.base import RowProgram
from bqbuild.nodes.judge import judge_program
from bqbuild.nodes.predicates import RowPredicate
from bqbuild.run.context import bare_context
from bqbuild.run.planning import build_free_nodes
from bqbuild.run.rows import RowFilter, row_groups
from bqbuild.run.session import Session
from bqbuild.run.state import State
from bqbuild.store.types import schema_of

INLINE = Where("--inline")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt rendered for one row: `cell` names the matrix cell and sample, or a filter's rule."""

    prompt: str
    llm: str
    row: str
    cell: str
    messages: tuple[Message, ...]
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Compiled:
    """One model: its SQL or its prompts; `note` says why there are none."""

    name: NodeName
    kind: str
    path: str
    sql: str | None = None
    prompts: tuple[Prompt, ...] = ()
    note: str | None = None


def compile_models(session: Session, names: Sequence[NodeName], limit: int) -> list[Compiled]:
    """The models compiled, prompts for at most `limit` calls of each. Free nodes that prompts read are built, no
    pointer is moved. Raises BuildError where one cannot be built."""
    nodes = [session.node(name) for name in names]
    with_prompts = [node for node in nodes if _prompts_of(node)]
    state = State(session, pointers=session.pointers())
    if with_prompts:
        above = {name for node in with_prompts for name in session.dag.ancestors(node.name)}
        build_free_nodes(session, sorted(above))
        for name in session.dag.sort(above):
            state.decide(session.node(name))
    return [_compile(session, state, node, limit) for node in nodes if node.kind == "sql" or _prompts_of(node)]


def _prompts_of(node: Node) -> list[tuple[str, str]]:
    """The prompts of a node, each with the connection that it goes to."""
    if node.kind in ROW_KINDS:
        return [(node.spec.prompt, node.spec.llm)]
    if node.kind == "filter":
        return [(rule.judge.prompt, rule.judge.llm) for rule in node.spec.rules if rule.judge is not None]
    return []


def _compile(session: Session, state: State, node: Node, limit: int) -> Compiled:
    if node.kind == "sql":
        return Compiled(node.name, node.kind, node.path, sql=node.body.strip())
    table = (state.parents(node) or {}).get(node.spec.from_)
    if table is None:
        note = f"`{node.spec.from_}` is not built, so there are no rows to render prompts for"
        return Compiled(node.name, node.kind, node.path, note=note)
    prompts = tuple(islice(_rendered(session, node, table), limit))
    nothing = f"`{node.spec.from_}` has no row that the prompt can be rendered for"
    return Compiled(node.name, node.kind, node.path, prompts=prompts, note=None if prompts else nothing)


def _rendered(session: Session, node: Node, table: Table) -> Iterator[Prompt]:
    schema = schema_of(table.columns)
    ctx = bare_context(session, node)
    where = getattr(node.spec, "where", None)
    keep = RowFilter(RowPredicate(where, node.places.get("where", node.where)), schema) if where else None
    if node.kind == "filter":
        judges = [rule for rule in node.spec.rules if rule.judge is not None]
        programs: list[RowProgram] = [judge_program(node, rule, ctx) for rule in judges]
    else:
        programs = [row_kind(node.kind).program(node, schema, ctx)]
    # few rows at a time: most often a handful of prompts is wanted
    for group in row_groups(session.store.tables.batches(table), rows=16):
        rows = (keep.keep(group) if keep else group).rows
        for program, (prompt, _) in zip(programs, _prompts_of(node), strict=True):
            yield from _first_asks(program, prompt, rows)


def _first_asks(program: RowProgram, prompt: str, rows: list[dict[str, Any]]) -> Iterator[Prompt]:
    """What each task would ask first; a row that its prompt does not fit asks nothing."""
    for task in (task for tasks in program.tasks(rows) for task in tasks):
        asks = next(task.steps, ())
        task.steps.close()
        for ask in asks:
            yield Prompt(prompt, ask.llm, task.row_id, task.cell, ask.request.messages, dict(ask.request.params))


def compile_inline(session: Session, source: str) -> str:
    """SQL from the command line, after Jinja. Raises ProjectErrors."""
    return session.project.render_sql(source, INLINE).body.strip()
