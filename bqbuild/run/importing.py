"""Adopts calls that were paid for elsewhere into the call log, so that a run finds them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.errors import BqError, ProjectError, UsageError, did_you_mean
from bqbuild.core.hashing import Digest, digest
from bqbuild.core.records import CallKey, CallRecord
from bqbuild.llm import provider_kind
from bqbuild.llm.client import call_cost
from bqbuild.llm.keys import call_key
from bqbuild.llm.pairs import Half, Pair, Refused, read_line, replies_of, request_of
from bqbuild.llm.redaction import Redactor
from bqbuild.run.session import Session
from bqbuild.store.base import Attempt

AT_A_TIME = 1000


@dataclass(slots=True)
class Imported:
    """What came of an import; `refused` has the file, line and reason of what was not taken."""

    imported: int = 0
    replaced: int = 0
    known: int = 0
    refused: list[tuple[str, int, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Import:
    """An import at work. A request that comes again with another reply is the next sample of it."""

    session: Session
    llm: str
    connection: ConnectionSpec
    identity: Mapping[str, Any]
    defaults: Mapping[str, Any]
    attempt: Attempt | None
    done: Imported = field(default_factory=Imported)
    replies: dict[CallKey, list[Digest]] = field(default_factory=dict)

    def records(self, pair: Pair) -> Iterator[CallRecord]:
        """The calls that a pair is. Raises Refused."""
        model = pair.body.get("model")
        if model is not None and model != self.connection.model:
            raise Refused(f"it asked `{model}`; the connection `{self.llm}` is `{self.connection.model}`")
        try:
            request = request_of(pair, self.defaults)
        except ProjectError as error:
            raise Refused(error.message) from error
        base = call_key(self.identity, request)
        for reply in replies_of(pair):
            earlier = self.replies.setdefault(base, [])
            said = digest([reply.text, reply.reasoning, reply.finish_reason])
            if said not in earlier:
                earlier.append(said)
            sampled = replace(request, sample=earlier.index(said))
            yield CallRecord(
                call_key(self.identity, sampled),
                self.llm,
                self.identity,
                sampled,
                reply,
                cost=call_cost(self.connection.price, reply),
                created=round(time.time(), 3),
                epoch=self.attempt.number if self.attempt is not None else 0,
            )

    async def keep(self, records: Sequence[CallRecord]) -> None:
        """Write down what the log does not have; with an attempt also what it has otherwise."""
        log = self.session.store.calls
        fresh = {record.key: record for record in records}
        known = log.find(list(fresh))
        others = [key for key, record in known.items() if _said(record) != _said(fresh[key])]
        replaced = others if self.attempt is not None else []
        if self.attempt is not None:
            self.attempt.note(replaced)
        wanted = [record for key, record in fresh.items() if key not in known or key in replaced]
        await asyncio.gather(*(log.append(record) for record in wanted))
        self.done.replaced += len(replaced)
        self.done.imported += len(wanted) - len(replaced)
        self.done.known += len(records) - len(wanted)


def import_calls(
    session: Session, files: Sequence[Path], llm: str, params: Mapping[str, Any], *, replaces: bool
) -> Imported:
    """Adopt the pairs in these files as calls of the connection `llm`. `params` are those of lines that have none.

    Raises UsageError where there is no such connection, StoreError where the log cannot be written.
    """
    connections = session.project.target.llms
    if llm not in connections:
        hint = did_you_mean(llm, connections) or f"connections are {', '.join(sorted(connections)) or 'none'}"
        raise UsageError(f"the target has no LLM connection `{llm}`", hint=hint)
    connection = connections[llm]
    identity = provider_kind(connection.provider).identity(connection)
    work = {"what": "import", "environment": session.environment, "files": [str(file) for file in files]}
    with session.store.epochs.begin(work) if replaces else nullcontext() as attempt:
        job = _Import(session, llm, connection, identity, {**connection.params, **params}, attempt)
        asyncio.run(_import(job, files, Redactor(connection)))
        if attempt is not None:
            attempt.finish()
    return job.done


async def _import(job: _Import, files: Sequence[Path], redactor: Redactor) -> None:
    pairs = _pairs(files, job.done, redactor)
    while chunk := list(islice(pairs, AT_A_TIME)):
        records: list[CallRecord] = []
        for place, pair in chunk:
            try:
                records += job.records(pair)
            except Refused as refused:
                job.done.refused.append((*place, refused.message))
        await job.keep(records)


_Place = tuple[str, int]


def _pairs(files: Iterable[Path], done: Imported, redactor: Redactor) -> Iterator[tuple[_Place, Pair]]:
    """The pairs of all files with their places; halves of a batch once both are there."""
    halves: dict[str, tuple[_Place, Half]] = {}
    for file in files:
        for place, line in _lines(file):
            try:
                found = read_line(_json(redactor.body(line)))
            except Refused as refused:
                done.refused.append((*place, refused.message))
                continue
            if isinstance(found, Pair):
                yield place, found
                continue
            other = halves.pop(found.custom_id, None)
            if other is None:
                halves[found.custom_id] = place, found
            elif (found.body is None) == (other[1].body is None):
                done.refused.append((*place, f"the custom_id `{found.custom_id}` came before"))
                halves[found.custom_id] = other
            else:
                request, response = (found, other[1]) if found.body is not None else (other[1], found)
                yield place, Pair(request.body or {}, response.response)
    for place, half in halves.values():
        lacks = "response" if half.body is not None else "request"
        done.refused.append((*place, f"there is no {lacks} with the custom_id `{half.custom_id}`"))


def _lines(file: Path) -> Iterator[tuple[_Place, bytes]]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield (str(file), number), line
    except OSError as error:
        raise BqError(f"{file} cannot be read: {error.strerror}") from error


def _json(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Refused(f"it is no JSON: {error}") from error


def _said(record: CallRecord) -> tuple[str, str, str]:
    return record.reply.text, record.reply.reasoning, record.reply.finish_reason
