"""What `debug` checks: that the store takes writes and that every LLM connection answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.errors import BqError, StoreError
from bqbuild.core.records import ChatRequest, Message
from bqbuild.llm import provider_kind
from bqbuild.llm.base import Provider
from bqbuild.llm.connection import Connection
from bqbuild.llm.openai import usable_urls
from bqbuild.run.session import Session

PROBE = ChatRequest((Message("user", "Say yes."),))
"""The request that is sent to each LLM. It is not recorded: its reply is nobody's data."""
PROBE_TOKENS = 1
NOT_THE_PLACE = {
    "params", "price", "max_concurrency", "batch_size", "constrain", "requests_per_minute", "tokens_per_minute",
    "timeout", "total_timeout", "read_timeout", "retries", "stream",
}  # fmt: skip
"""Keys in which connections to the same LLM may differ."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what it is, whether it is well, and what was seen."""

    name: str
    is_well: bool
    message: str
    hint: str | None = None


def check_store(session: Session) -> Check:
    """Open the store, and write to it what can be thrown away."""
    path = session.project.store_path
    try:
        probe = session.store.scratch / "debug"
        probe.write_text("", encoding="utf-8")
        probe.unlink()
        built = len(session.pointers())
    except (StoreError, OSError) as error:
        hint = error.hint if isinstance(error, BqError) else "check the folder's permissions"
        return Check("store", False, f"{path}: {error.message if isinstance(error, BqError) else error}", hint)
    return Check("store", True, f"{path}, {built} nodes built in `{session.environment}`")


def check_connections(session: Session) -> Iterator[Check]:
    """Ask every LLM of the target for one token, once where several connections lead to the same one."""
    for names, spec in _distinct(session.project.target.llms).items():
        yield asyncio.run(_check_connection(", ".join(names), spec))


def _distinct(llms: Mapping[str, ConnectionSpec]) -> dict[tuple[str, ...], ConnectionSpec]:
    """Connections by all names that lead to the same place."""
    groups: dict[str, list[str]] = {}
    for name, spec in llms.items():
        place = spec.model_dump_json(exclude=NOT_THE_PLACE)
        groups.setdefault(place, []).append(name)
    return {tuple(names): llms[names[0]] for names in groups.values()}


async def _check_connection(name: str, spec: ConnectionSpec) -> Check:
    warnings: list[str] = []
    provider: Provider | None = None
    try:
        kind = provider_kind(spec.provider)
        kind.identity(spec)
        provider = kind.open(spec, warnings.append)
        patience = spec.model_copy(update={"retries": min(spec.retries, 1)})
        connection = Connection(name, patience, provider, warnings.append)
        limit = "max_completion_tokens" if "max_completion_tokens" in spec.params else "max_tokens"
        reply, seconds = await connection.ask(replace(PROBE, params={**spec.params, limit: PROBE_TOKENS}))
        if spec.mode == "batch":
            await _check_batches(spec)
    except BqError as error:
        return Check(f"llm {name}", False, error.message, error.hint)
    finally:
        if provider is not None:
            await provider.close()
    shown = spec.base_url or spec.provider
    said = f"{reply.model or spec.model} at {shown} answers in {seconds:.1f} s"
    return Check(f"llm {name}", True, said, "; ".join(warnings) or None)


async def _check_batches(spec: ConnectionSpec) -> None:
    """Ask for the list of batches. Raises ProviderError where there is no Batch API."""
    from bqbuild.llm.batch_http import BatchApi

    api = BatchApi(spec, usable_urls(spec)[0])
    try:
        await api.check()
    finally:
        await api.close()
