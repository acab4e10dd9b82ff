"""Traces in a folder: one small JSON file for each build key."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xxhash

from bqbuild.core.hashing import Digest
from bqbuild.core.records import NodeName, ReadInput, Trace
from bqbuild.store.disk import checked_json, locked, read_checked, write_atomic

log = logging.getLogger(__name__)


class LocalTraces:
    """The traces of a folder store."""

    def __init__(self, root: Path, *, scratch: Path, locks: Path, mark: Callable[[Iterable[str]], None]) -> None:
        self._root = root
        self._scratch = scratch
        self._locks = locks
        self._mark = mark

    def find(self, keys: Sequence[Digest]) -> dict[Digest, Trace]:
        """The traces recorded under these build keys. One that is damaged is as good as none: its node is built again,
        from recorded calls."""
        self._mark(keys)
        found = {}
        for key in keys:
            trace = self._read(key)
            if trace is not None:
                found[key] = trace
        return found

    def put(self, trace: Trace, calls: bytes | None = None) -> None:
        """Record a trace; the last one for a key wins, but a partial one never replaces a complete one. `calls` are the
        keys of the calls that the build used, 16 bytes each, kept beside it.

        Raises StoreError.
        """
        self._mark([trace.key])
        data = checked_json(_to_json(trace))
        with locked(self._locks / f"traces-{trace.key[:2]}.lock"):
            if not trace.complete:
                known = self._read(trace.key)
                if known is not None and known.complete:
                    return
            if calls is not None:
                write_atomic(self.calls_path(trace.key), calls + xxhash.xxh3_128_digest(calls), self._scratch)
            write_atomic(self.path(trace.key), data, self._scratch)

    def recorded(self) -> list[Digest]:
        """The build keys of all traces, those of damaged ones included, sorted."""
        return sorted(Digest(path.stem) for path in self._root.glob("??/*.json"))

    def calls(self, key: Digest) -> set[bytes] | None:
        """The keys of the calls that a build used; None where that is not recorded, or damaged. Raises OSError."""
        try:
            data = self.calls_path(key).read_bytes()
        except FileNotFoundError:
            return None
        listed, check = data[:-16], data[-16:]
        if xxhash.xxh3_128_digest(listed) != check:
            return None
        return {listed[at : at + 16] for at in range(0, len(listed), 16)}

    def calls_path(self, key: Digest) -> Path:
        """Where the list of a build's calls is, or would be."""
        return self._root / key[:2] / f"{key}.calls"

    def path(self, key: Digest) -> Path:
        """Where the trace of this key is, or would be."""
        return self._root / key[:2] / f"{key}.json"

    def read(self, key: Digest) -> Trace | None:
        """A trace, or None where there is none. Raises ValueError where it is damaged, or another key's."""
        body = read_checked(self.path(key))
        if body is not None and body["key"] != key:
            raise ValueError("it belongs to another build")
        return _from_json(body) if body is not None else None

    def _read(self, key: Digest) -> Trace | None:
        try:
            return self.read(key)
        except ValueError as error:
            log.warning("%s is damaged (%s) and is not used", self.path(key), error)
            return None


def _to_json(trace: Trace) -> dict[str, Any]:
    return {
        "key": trace.key,
        "node": trace.node,
        "kind": trace.kind,
        "recipe": trace.recipe,
        "components": dict(trace.components),
        "inputs": {
            name: {"columns": list(read.columns), "ids": read.ids, "digest": read.digest}
            for name, read in trace.inputs.items()
        },
        "outputs": dict(trace.outputs),
        "complete": trace.complete,
        "stats": dict(trace.stats),
    }


def _from_json(body: Mapping[str, Any]) -> Trace:
    return Trace(
        key=Digest(body["key"]),
        node=NodeName(body["node"]),
        kind=body["kind"],
        recipe=Digest(body["recipe"]),
        components={name: Digest(value) for name, value in body["components"].items()},
        inputs={
            name: ReadInput(tuple(read["columns"]), read["ids"], Digest(read["digest"]))
            for name, read in body["inputs"].items()
        },
        outputs={side: Digest(value) for side, value in body["outputs"].items()},
        complete=body["complete"],
        stats=body["stats"],
    )
