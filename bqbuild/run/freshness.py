"""Whether what was built is still what the call log gives: since then answers may have been asked for again.

A trace bears the number of the last attempt that it knows of. One that is behind is compared with the calls that were
replaced since; a node whose tables do not name all calls that it used counts as if it had used one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bqbuild.core.records import CALLS, CallKey, Node, Trace
from bqbuild.plan.changes import Reason
from bqbuild.run.paid import connections_of
from bqbuild.run.renewal import Renewal
from bqbuild.store.base import Replaced, Store

EPOCH = "epoch"
"""Among the stats of a trace: the last attempt that it knows of."""

RENEWED = "renewed"
"""Among the stats of a trace: every answer was renewed by the attempt of this number, or a later one."""

TOLD = "told"
"""Among the stats of a trace: its tables name every call that it used."""

_CALLING = ("synthesize", "refine", "annotate", "filter")


class Freshness:
    """The epochs of a store, as one run or plan sees them."""

    def __init__(self, store: Store, renewal: Renewal | None) -> None:
        self._store = store
        self._renewal = renewal
        self._latest = store.epochs.latest()
        self._settled = store.epochs.settled() if self._latest else 0
        self._replaced: dict[int, Replaced] = {}

    def to_renew(self, node: Node, trace: Trace | None) -> Reason | None:
        """Why the node's answers must be asked for again in this run; None where they need not, or have been."""
        renewal = self._renewal
        if renewal is None or node.name not in renewal.nodes:
            return None
        if trace is not None and trace.complete and trace.stats.get(RENEWED, 0) >= renewal.since:
            return None
        return Reason("refresh", "--refresh-calls asks for all its answers again")

    def renewed(self, trace: Trace | None) -> Reason | None:
        """Why a trace is no longer what the call log gives; None where it is, or where there is no trace."""
        if trace is None or trace.kind not in _CALLING or trace.stats.get(EPOCH, 0) >= self._latest:
            return None
        count = self._count_replaced(trace)
        if count == 0:
            if self._settled > trace.stats.get(EPOCH, 0):
                # so that the tables are not read again by every run
                self._store.traces.put(replace(trace, stats={**trace.stats, EPOCH: self._settled}))
            return None
        if count is None:
            return Reason("refreshed", "answers were asked for again since, and some of them may be its own")
        return Reason("refreshed", f"{count} of its answers {'was' if count == 1 else 'were'} asked for again")

    def stats(self, node: Node, left: int, *, is_told: bool) -> dict[str, Any]:
        """What a trace that is written now says of epochs; nothing in a store without any. `left` counts the answers
        that are missing or were not renewed."""
        found: dict[str, Any] = {}
        if is_told and node.kind != "filter" and connections_of(node):
            found[TOLD] = True
        renewal = self._renewal
        is_renewed = renewal is not None and (node.name in renewal.nodes or bool(renewal.keys))
        known = renewal.number if renewal is not None and is_renewed else self._settled
        if known:
            found[EPOCH] = known
        if renewal is not None and node.name in renewal.nodes and not left:
            found[RENEWED] = renewal.since
        return found

    def _count_replaced(self, trace: Trace) -> int | None:
        """How many of the calls of a trace were replaced since; None where that is not known."""
        after = trace.stats.get(EPOCH, 0)
        if after not in self._replaced:
            self._replaced[after] = self._store.epochs.replaced(after)
        replaced = self._replaced[after]
        if not replaced.keys and replaced.is_certain:
            return 0
        if trace.kind == "filter" and not _has_judge(trace.components):
            return 0
        if not (replaced.is_certain and trace.stats.get(TOLD)):
            return None
        return len(self._calls_among(trace, replaced.keys))

    def _calls_among(self, trace: Trace, keys: frozenset[CallKey]) -> set[str]:
        """The calls of a trace that are among `keys`; tables that are gone are built again anyway."""
        # only where answers were asked for again: most runs, which build nothing, should not wait for it
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = pa.array(sorted(keys), pa.string())
        found: set[str] = set()
        for side in ("", "errors"):
            digest = trace.outputs.get(side)
            table = self._store.tables.find(digest) if digest is not None else None
            for batch in self._store.tables.batches(table, [CALLS]) if table is not None else ():
                calls = pc.list_flatten(batch.column(0))
                found.update(calls.filter(pc.is_in(calls, value_set=wanted)).to_pylist())
        return found


def _has_judge(components: Mapping[str, Any]) -> bool:
    return any(name.endswith(".llm.model") for name in components)
