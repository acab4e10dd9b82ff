"""The build key: what a node is, and the content of all that it reads."""

from __future__ import annotations

from collections.abc import Mapping

from bqbuild.core.hashing import Digest, digest
from bqbuild.core.records import ReadInput, Recipe


def build_key(recipe: Recipe, inputs: Mapping[str, ReadInput]) -> Digest:
    """The hash of the definition and of the content of every input that is really read."""
    read = {
        name: {"columns": list(given.columns), "ids": given.ids, "digest": given.digest}
        for name, given in inputs.items()
    }
    return digest({"recipe": recipe.digest, "inputs": read})
