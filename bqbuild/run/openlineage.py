"""Lineage in the OpenLineage form (static: JobEvents), so that catalogues such as Marquez or DataHub can read it.

Specification: https://openlineage.io/spec/2-0-2/OpenLineage.json
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from bqbuild import __version__
from bqbuild.core.records import Node, NodeName
from bqbuild.run.lineage import ColumnGraph
from bqbuild.run.session import Session

SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/JobEvent"
FACETS = "https://openlineage.io/spec/facets"
PRODUCER = f"bqbuild/{__version__}"

TRANSFORMATIONS = {"carried": ("DIRECT", "IDENTITY"), "sql": ("DIRECT", "TRANSFORMATION")}
"""OpenLineage's words for how a column is made; everything that a model or a function makes is a transformation."""


def job_events(session: Session, names: Collection[NodeName], columns: ColumnGraph) -> list[dict[str, Any]]:
    """One JobEvent for each model, its inputs, its output and the lineage of its columns."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    nodes = (session.node(name) for name in session.dag.sort(names))
    return [_event(session, node, columns, now) for node in nodes if node.kind != "source"]


def _event(session: Session, node: Node, columns: ColumnGraph, now: str) -> dict[str, Any]:
    space = session.environment
    inputs = dict.fromkeys(str(ref) for ref in node.refs)
    facets: dict[str, Any] = {
        "jobType": _facet(
            "2-0-3/JobTypeJobFacet", jobType=node.kind.upper(), integration="BQBUILD", processingType="BATCH"
        )
    }
    if node.kind == "sql":
        facets["sql"] = _facet("1-1-0/SQLJobFacet", query=node.body.strip())
    return {
        "eventTime": now,
        "producer": PRODUCER,
        "schemaURL": SPEC,
        "job": {"namespace": space, "name": str(node.name), "facets": facets},
        "inputs": [{"namespace": space, "name": name} for name in inputs],
        "outputs": [{"namespace": space, "name": str(node.name), "facets": _output_facets(space, node, columns)}],
    }


def _output_facets(space: str, node: Node, columns: ColumnGraph) -> dict[str, Any]:
    facets: dict[str, Any] = {}
    known = columns.columns(str(node.name))
    if known is not None:
        facets["schema"] = _facet("1-1-1/SchemaDatasetFacet", fields=[{"name": name} for name in known])
    lineage = columns.lineage(node.name)
    if lineage:
        facets["columnLineage"] = _facet(
            "1-2-0/ColumnLineageDatasetFacet",
            fields={
                name: {"inputFields": [_field(space, origin.parent, origin.column, origin.via) for origin in origins]}
                for name, origins in lineage.items()
            },
        )
    return facets


def _field(space: str, parent: str, column: str, via: str) -> dict[str, Any]:
    kind, subtype = TRANSFORMATIONS.get(via, ("DIRECT", "TRANSFORMATION"))
    transformation = {"type": kind, "subtype": subtype, "description": via, "masking": False}
    return {"namespace": space, "name": parent, "field": column, "transformations": [transformation]}


def _facet(schema: str, **content: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": f"{FACETS}/{schema}.json", **content}
