"""The kinds of nodes: one file each, and this registry, read by name and loaded when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bqbuild.core.loading import load

if TYPE_CHECKING:  # a command that builds nothing should not wait for pyarrow
    from bqbuild.nodes.base import RowKind, TableKind

TABLE_KINDS = {
    "source": "bqbuild.nodes.source:SourceKind",
    "sql": "bqbuild.nodes.sql:SqlKind",
    "python": "bqbuild.nodes.python:PythonKind",
    "filter": "bqbuild.nodes.filter:FilterKind",
    "mix": "bqbuild.nodes.mix:MixKind",
    "train": "bqbuild.nodes.train:TrainKind",
    "evaluate": "bqbuild.nodes.evaluate:EvaluateKind",
}
"""Kinds that need whole inputs."""

ROW_KINDS = {
    "synthesize": "bqbuild.nodes.synthesize:SynthesizeKind",
    "refine": "bqbuild.nodes.refine:RefineKind",
    "annotate": "bqbuild.nodes.annotate:AnnotateKind",
}
"""Kinds whose rows stream."""

SEMANTICS = dict.fromkeys((*TABLE_KINDS, *ROW_KINDS), 1)
"""The version of each kind's meaning: bumped on purpose, never by a release. Part of every build key of the kind."""

HEAVY_KINDS = frozenset({"train", "evaluate"})
"""Kinds that want the machine for themselves."""


def table_kind(name: str) -> TableKind:
    """The table kind of that name."""
    return cast("TableKind", load(TABLE_KINDS[name])())


def row_kind(name: str) -> RowKind:
    """The row kind of that name."""
    return cast("RowKind", load(ROW_KINDS[name])())
