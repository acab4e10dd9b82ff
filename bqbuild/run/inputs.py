"""What a node would read right now: the columns, and the digest of their content."""

from __future__ import annotations

from collections.abc import Mapping

from bqbuild.core.hashing import digest
from bqbuild.core.records import Node, ReadInput, Table
from bqbuild.nodes.sampled import sample_size
from bqbuild.nodes.source_files import files_digest, source_files
from bqbuild.run.view import View


def read_inputs(view: View, node: Node, parents: Mapping[str, Table]) -> dict[str, ReadInput]:
    """The inputs of a build key, by `str(ref)`; a source's are its `files` and its types in the `lock`."""
    if node.kind == "source":
        return _source_inputs(view, node)
    content = view.store.tables.content_digest
    return {
        name: ReadInput(part.columns, part.ids, content(parents[name], part.counted))
        for name, part in view.reads(node, parents).items()
    }


def _source_inputs(view: View, node: Node) -> dict[str, ReadInput]:
    """The lock is read as it is now: building a source may have written to it."""
    files = source_files(node.spec, view.project.root, node.where)
    content = files_digest(node.spec, files, view.artifacts / "stat_cache.json")
    types = {column.name: column.type for column in view.locked(node.name)}
    inputs = {"files": ReadInput((), False, content), "lock": ReadInput(tuple(sorted(types)), False, digest(types))}
    rows = sample_size(node.spec, view.project)
    return inputs if rows is None else inputs | {"sample": ReadInput((), False, digest(["sample", rows]))}
