"""The provider `openai`: any server that speaks OpenAI's chat completions. This half needs no HTTP library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.errors import ProjectError
from bqbuild.core.loading import load
from bqbuild.llm.base import Provider, Warn
from bqbuild.llm.redaction import bare_url, is_http_url

EXAMPLE = "set it in profiles.yml, for example http://host:8000/v1"


class OpenAIKind:
    """Identity is the model's name and the declared revision: where it is served does not matter."""

    def identity(self, connection: ConnectionSpec) -> Mapping[str, Any]:
        """`{"model": …}`, and `revision` where one is declared."""
        if connection.revision is None:
            return {"model": connection.model}
        return {"model": connection.model, "revision": connection.revision}

    def constrains(self, connection: ConnectionSpec) -> bool:
        """No: many servers do not know `response_format`, and replies are read without it."""
        return False

    def open(self, connection: ConnectionSpec, warn: Warn) -> Provider:
        """A provider with its own pool of connections. Raises ProjectError without a usable `base_url`."""
        urls = usable_urls(connection)
        return cast(Provider, load("bqbuild.llm.openai_http:OpenAIProvider")(connection, urls, warn))


def usable_urls(connection: ConnectionSpec) -> list[str]:
    """The base URLs of a connection. Raises ProjectError where there is none, or one that is no URL."""
    urls = [url for url in (connection.base_url, *connection.endpoints) if url]
    if not urls:
        raise ProjectError("an `openai` connection needs a `base_url`", hint=EXAMPLE)
    for url in urls:
        if not is_http_url(url):
            raise ProjectError(f"the `base_url` {bare_url(url)} is no http:// or https:// address", hint=EXAMPLE)
    return urls
