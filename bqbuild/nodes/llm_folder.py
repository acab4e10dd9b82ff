"""Finds the weights that a `train` or `evaluate` node names: those of another train node, or those on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bqbuild.core.errors import BqError, BuildError, StoreError, Where
from bqbuild.core.hashing import Digest
from bqbuild.core.records import NodeName, Table
from bqbuild.llm.weights import resolve_weights
from bqbuild.nodes.base import BuildContext

CHECKPOINT = "checkpoint"
"""The column of a train node's metrics that holds the digest of its weights, in the last row."""


def llm_folder(name: str, inputs: Mapping[str, Table], ctx: BuildContext, where: Where) -> Path:
    """The folder of the LLM `name`: the checkpoint of the train node of that name, else what `resolve_weights` finds.

    Raises BqError, at `where`, if it is not there.
    """
    node = ctx.project.nodes.get(NodeName(name))
    if node is None:
        try:
            return resolve_weights(name)
        except BqError as error:
            raise BuildError(error.message, where=where, hint=error.hint) from error
    if node.kind != "train":
        raise BuildError(f"`{name}` is a model of kind {node.kind}, which trains no LLM", where=where)
    folder = ctx.store.folders.find(checkpoint_digest(inputs[name], ctx))
    if folder is None:
        hint = f"`bqbuild run --full-refresh --select {name}` trains it again"
        raise StoreError(f"the checkpoint of `{name}` is not in the store", where=where, hint=hint)
    return folder


def checkpoint_digest(metrics: Table, ctx: BuildContext) -> Digest:
    """The digest of the weights that a train node made, from its metrics."""
    for batch in ctx.store.tables.batches(metrics, [CHECKPOINT]):
        for value in batch.column(CHECKPOINT).to_pylist():
            if value is not None:
                return Digest(value)
    raise BuildError("a train node's metrics name no checkpoint", hint="run that node with --full-refresh")
