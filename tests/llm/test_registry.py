"""The registry of providers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.errors import ProjectError
from bqbuild.llm import PROVIDERS, provider_kind


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_every_provider_of_the_registry_is_there(name: str) -> None:
    kind = provider_kind(name)
    for method in ("identity", "constrains", "open"):
        assert callable(getattr(kind, method))


def test_an_unknown_provider_is_named_with_the_nearest() -> None:
    with pytest.raises(ProjectError, match="unknown provider 'opnai'") as caught:
        provider_kind("opnai")
    assert caught.value.hint == "did you mean 'openai'?"
    with pytest.raises(ProjectError) as caught:
        provider_kind("zzz")
    assert caught.value.hint == "providers are embedded, openai"


def test_identity_is_the_model_and_its_revision_and_nothing_of_where_it_runs() -> None:
    kind = provider_kind("openai")
    one = ConnectionSpec(provider="openai", model="m", base_url="http://a/v1", api_key="x", timeout=3)
    two = ConnectionSpec(
        provider="openai", model="m", base_url="http://b/v1", endpoints=["http://c"], max_concurrency=3
    )
    assert kind.identity(one) == kind.identity(two) == {"model": "m"}
    assert kind.identity(one.model_copy(update={"revision": "r"})) == {"model": "m", "revision": "r"}


@pytest.mark.parametrize("url", [None, "", "localhost:8000/v1"])
def test_a_connection_without_a_usable_address_cannot_be_opened(url: str | None) -> None:
    with pytest.raises(ProjectError, match="base_url") as caught:
        provider_kind("openai").open(ConnectionSpec(provider="openai", model="m", base_url=url), print)
    assert caught.value.hint


def test_naming_a_provider_loads_no_http_library() -> None:
    code = (
        "import sys; from bqbuild.llm import provider_kind; provider_kind('openai');"
        "print([name for name in ('aiohttp', 'torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
