"""What commands leave in `.bqbuild/<target>/`: manifest.json, run_results.json, plan.json, lineage.json."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from bqbuild import __version__
from bqbuild.core.errors import StoreError
from bqbuild.core.events import Counts, NodeResult, Tested
from bqbuild.core.records import ID, Node
from bqbuild.plan.plan import Plan
from bqbuild.run.view import View

WAREHOUSE = "warehouse.duckdb"

WAREHOUSE_STAMP = ".warehouse"
"""A file beside it that says what its views were made of; its time is when it was last found to be current."""

SCHEMA_VERSION = 1
"""Of every artifact; a reader refuses what it does not know."""


def result_json(result: NodeResult) -> dict[str, Any]:
    """One entry of `run_results.json`."""
    counts = result.counts
    return {
        "name": result.name,
        "kind": result.kind,
        "status": result.status,
        "reason": result.reason,
        "rows": counts.rows,
        **_spent(counts),
        "seconds": result.seconds,
        "table": result.table,
        "sides": dict(result.sides),
    }


def run_results(
    session: View, results: Sequence[NodeResult], tested: Sequence[Tested] = (), *, command: str
) -> dict[str, Any]:
    """The content of `run_results.json`: models, not sources; and data tests, where the command ran any."""
    models = [result for result in results if result.kind != "source"]
    statuses = [result.status for result in models]
    sums = Counts(
        rows=sum(result.counts.rows for result in models),
        new_calls=sum(result.counts.new_calls for result in models),
        cached_calls=sum(result.counts.cached_calls for result in models),
        failed_calls=sum(result.counts.failed_calls for result in models),
        input_tokens=sum(result.counts.input_tokens for result in models),
        output_tokens=sum(result.counts.output_tokens for result in models),
        cost=round(sum(result.counts.cost for result in models), 9),
    )
    return {
        "metadata": _metadata(session, command),
        "results": [result_json(result) for result in models],
        "tests": [
            {"name": test.name, "model": test.model, "status": test.status, "failures": test.failures}
            for test in tested
        ],
        "totals": {
            "nodes": {
                status: statuses.count(status) for status in ("success", "cached", "partial", "error", "skipped")
            },
            "rows": sums.rows,
            **_spent(sums),
            "seconds": round(sum(result.seconds for result in models), 3),
        },
    }


def write_manifest(session: View, command: str) -> None:
    """Write `manifest.json`: every node as it is declared now, with the digests of its meaning."""
    document = {
        "metadata": _metadata(session, command),
        "nodes": {name: _node_json(session, session.node(name)) for name in session.dag.order},
        "children": {name: list(children) for name, children in session.dag.children.items()},
    }
    write_json(session.artifacts / "manifest.json", document)


def write_plan(session: View, plan: Plan) -> None:
    """Write `plan.json`: what `plan --json` prints, with metadata."""
    write_json(session.artifacts / "plan.json", {"metadata": _metadata(session, "plan"), **plan.json()})


def write_lineage(session: View, graph: Mapping[str, Any]) -> None:
    """Write `lineage.json`: what `lineage --json` prints of the whole graph, with metadata."""
    write_json(session.artifacts / "lineage.json", {"metadata": _metadata(session, "lineage"), **graph})


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file whole or not at all. Raises StoreError where the disk does not take it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            file.write(_indented(document))
        os.replace(file.name, path)
    except OSError as error:
        raise StoreError(
            f"cannot write {path.name}: {error.strerror}", hint="free disk space, then run again"
        ) from error


def _indented(document: Any) -> bytes:
    """JSON with a line a value. The standard library's takes fifty times as long, but takes everything."""
    try:
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return json.dumps(document, ensure_ascii=True, indent=2).encode() + b"\n"


def _node_json(session: View, node: Node) -> dict[str, Any]:
    recipe = session.recipe(node.name)
    return {
        "name": node.name,
        "kind": node.kind,
        "path": node.path,
        "line": node.where.line or None,
        "fqn": list(node.fqn),
        "description": node.spec.description,
        "tags": list(node.spec.tags),
        "meta": dict(node.spec.meta),
        "depends_on": [str(ref) for ref in node.refs],
        "columns": [name for name in session.columns.get(node.name) or () if name != ID],
        "definition": recipe.digest,
        "components": dict(recipe.components),
    }


def _metadata(session: View, command: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "bqbuild_version": __version__,
        "command": command,
        "project": session.project.name,
        "target": session.project.target_name,
        "environment": session.environment,
        "generated_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _spent(counts: Counts) -> dict[str, Any]:
    return {
        "calls": {"new": counts.new_calls, "cached": counts.cached_calls, "failed": counts.failed_calls},
        "tokens": {"input": counts.input_tokens, "output": counts.output_tokens},
        "cost": counts.cost,
    }
