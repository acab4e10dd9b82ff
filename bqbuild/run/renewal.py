"""Asking for answers again, on purpose: which calls a run renews, and when a renewal is done.

`--refresh-calls` renews every call of the selected LLM nodes, `retry` certain calls. Answers that came count at once,
each under the number of its attempt; a run that dies leaves the work unfinished, and the same command goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bqbuild.core.errors import UsageError
from bqbuild.core.events import NodeResult
from bqbuild.core.hashing import digest
from bqbuild.core.records import CallKey, CallRecord, NodeName
from bqbuild.run.paid import connections_of
from bqbuild.run.view import View
from bqbuild.store.base import Attempt


@dataclass(slots=True)
class Renewal:
    """What a run asks for again: all calls of `nodes`, and `keys` of whatever node. Answers of attempt `since` or
    later count as renewed; what is bought bears `number`. Without an `attempt` nothing is sent (a plan)."""

    number: int
    since: int
    nodes: frozenset[NodeName] = frozenset()
    keys: frozenset[CallKey] = frozenset()
    attempt: Attempt | None = None
    given_up: set[CallKey] = field(default_factory=set)
    """Calls that got no new answer: their earlier one is used in the rest of the run."""

    def counted(
        self, found: Mapping[CallKey, CallRecord], wanted: Sequence[CallKey], *, all_of_them: bool
    ) -> dict[CallKey, CallRecord]:
        """The records that need not be asked for again; what will be sent is written down first."""
        kept = {key: record for key, record in found.items() if not self._is_due(record, all_of_them)}
        if self.attempt is not None:
            self.attempt.note([key for key in found if key not in kept])
            if all_of_them:
                # what was never asked replaces nothing, unless another process asks it at this moment
                self.attempt.note([key for key in wanted if key not in found], durably=False)
        return kept

    def is_old(self, record: CallRecord, *, all_of_them: bool) -> bool:
        """Whether an answer was to be renewed and is still the earlier one."""
        return record.epoch < self.since and (all_of_them or record.key in self.keys)

    def _is_due(self, record: CallRecord, all_of_them: bool) -> bool:
        return record.key not in self.given_up and self.is_old(record, all_of_them=all_of_them)


def refreshed_nodes(session: View, names: Iterable[NodeName]) -> frozenset[NodeName]:
    """The nodes among `names` that call an LLM. Raises UsageError where none does."""
    found = frozenset(name for name in names if connections_of(session.node(name)))
    if not found:
        raise UsageError("--refresh-calls: none of the selected models calls an LLM", hint="select others")
    return found


def refresh_work(session: View, nodes: Iterable[NodeName]) -> dict[str, Any]:
    """What a refresh is about, so that the same command goes on with it."""
    return {"what": "refresh", "environment": session.environment, "nodes": sorted(nodes)}


def planned_refresh(session: View, names: Sequence[NodeName]) -> Renewal:
    """The renewal that `run --refresh-calls` would make, for a plan."""
    nodes = refreshed_nodes(session, names)
    number = session.store.epochs.latest() + 1
    return Renewal(number, session.store.epochs.pending(refresh_work(session, nodes)) or number, nodes)


@contextmanager
def renewing(
    session: View, names: Sequence[NodeName], keys: frozenset[CallKey] | None, *, is_refresh: bool
) -> Iterator[Renewal | None]:
    """The renewal that a run is to make, begun; None for a run that makes none."""
    if is_refresh:
        nodes = refreshed_nodes(session, names)
        with session.store.epochs.begin(refresh_work(session, nodes)) as attempt:
            yield Renewal(attempt.number, attempt.since, nodes, attempt=attempt)
    elif keys:
        work = {"what": "retry", "environment": session.environment, "keys": digest(sorted(keys))}
        with session.store.epochs.begin(work, keys) as attempt:
            yield Renewal(attempt.number, attempt.since, keys=keys, attempt=attempt)
    else:
        yield None


def finish_renewal(renewal: Renewal, results: Sequence[NodeResult]) -> None:
    """The renewal is done where every node that it was about ended well; a retry asks once."""
    due = [result for result in results if result.name in renewal.nodes]
    if renewal.attempt is not None and all(result.status in ("success", "cached") for result in due):
        renewal.attempt.finish()
