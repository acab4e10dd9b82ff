"""From one record back to the seed it came from: every prompt, reply, LLM and cost on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from bqbuild.core.errors import UsageError, did_you_mean
from bqbuild.core.records import (
    CALLS,
    ID,
    PARENT,
    ROOTS,
    CallKey,
    CallRecord,
    Node,
    NodeName,
    Table,
)
from bqbuild.nodes.source import source_origins
from bqbuild.run.session import Session
from bqbuild.run.state import State

LLM_KINDS = ("synthesize", "refine", "annotate")


def trace(session: Session, record: str, model: str | None = None) -> dict[str, Any]:
    """The story of a record, from itself back to its source, in the form that `trace --json` prints.

    Raises UsageError where no model, or more than one most downstream model, has the id.
    """
    state = State(session, pointers=session.pointers())
    name, row = _find_record(session, state, record, model)
    found = {key: value for key, value in row.items() if key != ROOTS}
    steps: list[dict[str, Any]] = []
    source: dict[str, Any] | None = None
    here: tuple[NodeName, dict[str, Any]] | None = (name, row)
    while here is not None:
        node, row = session.node(here[0]), here[1]
        if node.kind == "source":
            source = _origin(session, node, row)
            break
        steps.append(_step(session, node, row))
        here = _above(session, state, node, row)
    return {"record": {"model": name, **found}, "steps": steps, "source": source}


def _find_record(session: Session, state: State, record: str, model: str | None) -> tuple[NodeName, dict[str, Any]]:
    if model is not None:
        if NodeName(model) not in session.project.nodes:
            hint = did_you_mean(model, map(str, session.project.nodes))
            raise UsageError(f"there is no model `{model}`", hint=hint)
        row = _row(session, state, NodeName(model), record)
        if row is None:
            raise UsageError(f"`{model}` has no record `{record}`", hint=f"bqbuild show {model} lists ids")
        return NodeName(model), row
    found: dict[NodeName, dict[str, Any]] = {}
    for name in session.dag.order:
        row = _row(session, state, name, record)
        if row is not None:
            found[name] = row
    if not found:
        raise UsageError(f"no model has a record `{record}`", hint="`bqbuild show MODEL` lists ids")
    lowest = [name for name in found if not session.dag.descendants(name) & found.keys()]
    if len(lowest) > 1:
        listed = ", ".join(f"{name}:{record}" for name in lowest)
        raise UsageError(f"several models have the record `{record}`", hint=f"name one: {listed}")
    return lowest[0], found[lowest[0]]


def _row(session: Session, state: State, name: NodeName, record: str) -> dict[str, Any] | None:
    output = state.output(name)
    return _row_of(session, output.tables[""], record) if output is not None else None


def _row_of(session: Session, table: Table, record: str) -> dict[str, Any] | None:
    for file in session.store.tables.files(table):
        rows = pq.read_table(file, filters=pc.field(ID) == record)
        if rows.num_rows:
            found: dict[str, Any] = rows.slice(0, 1).to_pylist()[0]
            return found
    return None


def _step(session: Session, node: Node, row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in row.items() if key != ROOTS}
    step: dict[str, Any] = {"model": node.name, "kind": node.kind, "row": shown}
    step |= {"prompt": None, "messages": None, "response": None, "llm": None, "cost": None}
    if node.kind not in LLM_KINDS or not row.get(CALLS):
        return step
    keys = [CallKey(key) for key in row[CALLS]]
    records = session.store.calls.find(keys)
    calls = [_call(records[key]) for key in keys if key in records]
    if calls:
        step |= calls[-1]
        step["cost"] = sum(call["cost"] for call in calls)
    return step | {"prompt": node.spec.prompt, "calls": calls}


def _call(record: CallRecord) -> dict[str, Any]:
    return {
        "messages": [{"role": message.role, "content": message.content} for message in record.request.messages],
        "response": record.reply.text,
        "reasoning": record.reply.reasoning or None,
        "llm": {
            "connection": record.llm,
            "model": record.reply.model or record.identity.get("model"),
            "params": dict(record.request.params),
            "sample": record.request.sample,
        },
        "tokens": {"input": record.reply.input_tokens, "output": record.reply.output_tokens},
        "cost": record.cost,
        "seconds": record.seconds,
        "key": record.key,
    }


def _above(
    session: Session, state: State, node: Node, row: Mapping[str, Any]
) -> tuple[NodeName, dict[str, Any]] | None:
    """The row that this one was made from: its parent, or where ids are kept the row of the same id; where rows were
    joined or grouped, a source row that it came from."""
    wanted = row[PARENT] if row.get(PARENT) and node.kind != "sql" else row[ID]
    for ref in node.refs:
        output = state.output(ref.node)
        if output is not None and ref.side in output.tables:
            found = _row_of(session, output.tables[ref.side], wanted)
            if found is not None:
                return ref.node, found
    for name in session.dag.order:
        if session.node(name).kind == "source":
            for root in row.get(ROOTS) or ():
                found = _row(session, state, name, root)
                if found is not None:
                    return name, found
    return None


def _origin(session: Session, node: Node, row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in row.items() if not key.startswith("_bq_")}
    for row_id, file, line, _ in source_origins(node, session.project):
        if row_id == row[ID]:
            return {"name": node.name, "file": file, "line": line, "row": shown}
    return {"name": node.name, "file": None, "line": None, "row": shown}
