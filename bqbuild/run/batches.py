"""What a plan says of calls that go by batch."""

from __future__ import annotations

from collections.abc import Iterator

from bqbuild.core.errors import ProjectError
from bqbuild.core.records import Node
from bqbuild.llm import identify
from bqbuild.plan.changes import Reason
from bqbuild.plan.plan import Amount
from bqbuild.run.paid import connections_of
from bqbuild.run.session import Session


def batch_reasons(session: Session, node: Node, new_calls: Amount) -> Iterator[Reason]:
    """That the node's calls go by batch, and what is under way already. Raises StoreError."""
    if new_calls.value == 0:
        return
    for name in sorted(connections_of(node)):
        if session.project.target.llms[name].mode == "batch":
            message = f"its calls go by batch over `{name}`: answers can take hours{_under_way(session, name)}"
            yield Reason("batch", message, node.places.get("llm"))


def _under_way(session: Session, llm: str) -> str:
    try:
        identity = dict(identify(session.project.target.llms[llm]))
    except ProjectError:
        return ""
    found = [record for record in session.store.batches.open() if dict(record.identity) == identity]
    if not found:
        return ""
    calls = sum(record.requests for record in found)
    batches = "a batch" if len(found) == 1 else f"{len(found)} batches"
    verb = "is" if len(found) == 1 else "are"
    return f"; {batches} of {calls:,} call{'' if calls == 1 else 's'} {verb} under way and {verb} not sent again"
