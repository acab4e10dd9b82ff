"""What recipes count that is in no file of the project: weights on this machine, versions of packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bqbuild.core.errors import ProjectError

World = Mapping[str, Any]
"""As JSON: `weights`, a list of [model, revision, identity], and `packages`, a mapping of names to versions."""


def look_at_world(weights: Iterable[tuple[str, str | None]], packages: Iterable[str]) -> World:
    """What is there now of these weights and packages."""
    return {
        "weights": [[model, revision, _weights(model, revision)] for model, revision in sorted(weights, key=str)],
        "packages": {name: package_version(name) for name in sorted(packages)},
    }


def same_world(world: World) -> bool:
    """Whether what was there is there still."""
    weights = ((model, revision) for model, revision, _ in world["weights"])
    return look_at_world(weights, world["packages"]) == world


def package_version(name: str) -> str | None:
    """The version of an installed package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _weights(model: str, revision: str | None) -> Mapping[str, str] | None:
    from bqbuild.llm.weights import weights_identity

    try:
        return weights_identity(model, revision=revision)
    except ProjectError:
        return None
