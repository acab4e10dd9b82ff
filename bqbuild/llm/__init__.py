"""Providers of LLM calls, and the client that keeps within their limits.

`PROVIDERS` is the registry: one line a provider, loaded when a connection first names it. Packages from outside add
theirs with an entry point of the group `bqbuild.providers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bqbuild.core.errors import ProjectError, did_you_mean
from bqbuild.core.loading import load

if TYPE_CHECKING:  # whoever only looks for weights reads no profiles
    from bqbuild.config.specs import ConnectionSpec
    from bqbuild.llm.base import ProviderKind

PROVIDERS: Mapping[str, str] = {
    "embedded": "bqbuild.llm.embedded:EmbeddedKind",
    "openai": "bqbuild.llm.openai:OpenAIKind",
}

ENTRY_POINTS = "bqbuild.providers"


def provider_kind(name: str) -> ProviderKind:
    """The provider called `name`. Raises ProjectError for a name that nobody registered."""
    if name in PROVIDERS:
        kind: ProviderKind = load(PROVIDERS[name])()
        return kind
    from importlib.metadata import entry_points

    others = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in others:
        known = sorted({*PROVIDERS, *others})
        hint = did_you_mean(name, known) or f"providers are {', '.join(known)}"
        raise ProjectError(f"unknown provider '{name}'", hint=hint)
    outside: ProviderKind = others[name].load()()
    return outside


def identify(connection: ConnectionSpec) -> Mapping[str, Any]:
    """What makes the LLM of this connection the same LLM. Raises ProjectError where it is not there."""
    return provider_kind(connection.provider).identity(connection)
