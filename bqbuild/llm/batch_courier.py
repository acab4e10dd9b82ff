"""Takes one batch through its provider's steps: upload, create, look until it has ended, fetch the answers.

A step that may have happened already (another process died, or an answer got lost) is looked for at the provider before
it is done: by the name of the file, and by the token in a batch's metadata.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.batches import BatchBook
from bqbuild.core.errors import ProviderError, StoreError
from bqbuild.core.events import BatchProgress
from bqbuild.core.records import BatchRecord, CallKey, ChatReply, ChatRequest
from bqbuild.llm.base import Tell
from bqbuild.llm.batch_format import ENDED, RemoteBatch, read_line
from bqbuild.llm.batch_http import BatchApi, Gone
from bqbuild.llm.connection import Pace

T = TypeVar("T")
Outcome = tuple[CallKey, ChatReply | ProviderError]

FIRST_LOOK = 1.0
"""Seconds until a new batch is looked at; each wait is half as long again as the one before, up to `batch.poll`."""
LINES = 1000
"""Answers that are handed on together."""
COLLECTED_LATER = "the batch goes on at the provider, and the next `bqbuild run` collects it"


class NotSent(ProviderError):
    """A batch that an earlier run had planned was not sent: not all of its calls are wanted any more."""


@dataclass(slots=True)
class Courier:
    """The steps of one batch, for the holder of its lease. `line_of` makes a call's line in the provider's file."""

    name: str
    spec: ConnectionSpec
    api: BatchApi
    book: BatchBook
    pace: Pace
    tell: Tell
    line_of: Callable[[CallKey, ChatRequest], bytes]

    async def send(self, record: BatchRecord, *, is_new: bool, is_wanted: Callable[[], bool]) -> BatchRecord:
        """See to it that the provider has the batch; the record with its name. Raises ProviderError, StoreError."""
        if record.state == "created":
            return record
        found = None
        if record.state == "uploaded" and not is_new:
            found = await self._patiently(lambda: self.api.find_batch(record.token))
        if found is None:
            self._refuse_to_send_twice(record)
            if not is_new and not is_wanted():
                raise NotSent("a batch that was only planned is planned anew", kind="request")
            if record.state == "planned":
                self._say(record, "uploading")
                remote = await self._upload(record, is_new=is_new)
                record = await self._note(replace(record, state="uploaded", input_file=remote, place=self.api.place))
            found = await self._create(record, is_new=is_new)
        return await self._note(replace(record, state="created", batch=found.id, place=self.api.place))

    async def wait(self, record: BatchRecord) -> RemoteBatch:
        """Look at the batch until it has ended. Raises ProviderError, Gone where the provider does not know it."""
        pause = min(FIRST_LOOK, self.spec.batch.poll)
        while True:
            try:
                found = await self._patiently(lambda: self.api.look(record.batch))
            except Gone as error:
                if record.place == self.api.place:
                    raise
                raise _elsewhere(record) from error
            except ProviderError as error:
                raise ProviderError(error.message, kind=error.kind, hint=error.hint or COLLECTED_LATER) from error
            self._say(record, found.status, found)
            if found.status in ENDED:
                return found
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, self.spec.batch.poll)

    async def outcomes(self, record: BatchRecord, remote: RemoteBatch) -> AsyncIterator[list[Outcome]]:
        """What came of the requests, many at a time. Raises Gone where the files are no longer there, ProviderError."""
        self._say(record, "collecting", remote)
        for name in filter(None, (remote.output_file, remote.error_file)):
            with tempfile.TemporaryFile(dir=self.book.scratch) as file:
                await self._patiently(partial(self._download, name, file))
                file.seek(0)
                while lines := await asyncio.to_thread(_next_lines, file):
                    read = (read_line(self.api.redactor.body(line)) for line in lines)
                    yield [(key, self._clean(outcome)) for key, outcome in filter(None, read)]

    def over(self, record: BatchRecord, status: str) -> None:
        """Tell that nothing more comes of this batch."""
        over = BatchProgress(self.name, record.token, status, record.requests, remote=record.batch, is_over=True)
        self.tell(over)

    async def _upload(self, record: BatchRecord, *, is_new: bool) -> str:
        """The file of requests is made once, and sent until the provider has it."""
        name = f"bqbuild-{record.token}.jsonl"
        may_be_there = not is_new
        path = self.book.scratch / name
        try:
            await asyncio.to_thread(self._write_requests, record, path)

            async def step() -> str:
                nonlocal may_be_there
                found = await self.api.find_file(name) if may_be_there else None
                may_be_there = True
                if found is not None:
                    return found
                with path.open("rb") as file:  # anew each time: it is closed when it was sent
                    return await self.api.upload(name, file)

            return await self._patiently(step)
        finally:
            path.unlink(missing_ok=True)

    async def _create(self, record: BatchRecord, *, is_new: bool) -> RemoteBatch:
        may_be_there = not is_new

        async def step() -> RemoteBatch:
            nonlocal may_be_there
            found = await self.api.find_batch(record.token) if may_be_there else None
            may_be_there = True
            return found or await self.api.create(record.input_file, record.token)

        return await self._patiently(step)

    def _refuse_to_send_twice(self, record: BatchRecord) -> None:
        """At another address than the one it was sent to, nobody can say whether there is a batch."""
        if record.state == "uploaded" and record.place != self.api.place:
            raise _elsewhere(record)

    def _write_requests(self, record: BatchRecord, path: Path) -> None:
        try:
            with path.open("wb") as file:
                file.writelines(self.line_of(key, request) for key, request in self.book.calls(record.token))
        except OSError as error:
            raise _disk_error(error) from error

    async def _download(self, name: str, file: IO[bytes]) -> None:
        try:
            file.seek(0)
            file.truncate()
            await self.api.download(name, file)
        except OSError as error:
            raise _disk_error(error) from error

    async def _note(self, record: BatchRecord) -> BatchRecord:
        await asyncio.to_thread(self.book.write, record)
        return record

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step until it works or there is no point in trying again."""
        attempt = 0
        while True:
            try:
                return await step()
            except ProviderError as error:
                if not error.retryable:
                    raise
                if attempt >= self.spec.retries:
                    raise ProviderError(error.message, kind=error.kind, hint=error.hint) from error
                attempt += 1
                pause = min(self.pace.first_wait * 2 ** (attempt - 1), self.pace.longest_wait)
                if error.retry_after is not None:
                    pause = min(error.retry_after, self.pace.longest_pause)
            await asyncio.sleep(pause)

    def _say(self, record: BatchRecord, status: str, found: RemoteBatch | None = None) -> None:
        done, failed = (found.done, found.failed) if found else (0, 0)
        self.tell(BatchProgress(self.name, record.token, status, record.requests, done, failed, record.batch))

    def _clean(self, outcome: ChatReply | ProviderError) -> ChatReply | ProviderError:
        if isinstance(outcome, ProviderError):
            outcome.message = self.api.redactor.excerpt(outcome.message)
        return outcome


def _elsewhere(record: BatchRecord) -> ProviderError:
    what = f"batch {record.batch}" if record.batch else f"a batch that was about to be made ({record.token})"
    return ProviderError(
        f"the call was sent to {record.place or 'another address'} in {what}, which this connection does not reach",
        kind="setup",
        hint="set `base_url` back and run again; to pay again, delete the batch's files in the store's `batches`",
    )


def _disk_error(error: OSError) -> StoreError:
    said = error.strerror or str(error)
    return StoreError(f"cannot write the files of a batch: {said}", hint="free some space, then run again")


def _next_lines(file: IO[bytes]) -> list[bytes]:
    lines: list[bytes] = []
    while len(lines) < LINES and (line := file.readline()):
        lines.append(line)
    return lines
