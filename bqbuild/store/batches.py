"""Batches that a provider was sent, or is about to be, until all their answers are in the call log.

    batches/<token>.json    how far the batch has got: a BatchRecord, written whole at every step
    batches/<token>.calls   its calls in the order of the provider's file, a line each with a checksum; written once

The calls come first and go last, so a record always has them. A batch is looked after under the lease of its token, and
batches are planned under one lease of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bqbuild.core.records import BatchRecord, CallKey, ChatRequest
from bqbuild.store.base import DamagedError, Leases
from bqbuild.store.callrecords import request_from_json, request_to_json
from bqbuild.store.disk import checked_json, disk_errors, fsync, make_folder, read_checked, write_atomic
from bqbuild.store.journal import decode_line, encode_line, is_sound, line_key

PAY_AGAIN = "restore the file; or delete both files of the batch, which asks for its calls again and pays for them"


class LocalBatches:
    """The batches of a folder store. `scratch` is a folder for files on their way."""

    def __init__(self, root: Path, *, scratch: Path, leases: Leases) -> None:
        self.scratch = scratch
        self._root = root
        self._leases = leases

    def open(self) -> list[BatchRecord]:
        """The batches whose answers are not all in the log, the oldest first. Raises DamagedError, StoreError."""
        found = (self.find(path.stem) for path in self._root.glob("*.json"))
        return sorted((record for record in found if record is not None), key=lambda record: record.created)

    def find(self, token: str) -> BatchRecord | None:
        """How far a batch has got, or None where it is done with. Raises DamagedError, StoreError."""
        path = self._path(token, "json")
        try:
            body = read_checked(path)
        except ValueError as error:
            raise DamagedError(f"{path} is damaged: {error}", hint=PAY_AGAIN) from error
        return None if body is None else _from_json(body)

    def plan(self, record: BatchRecord, calls: Iterable[tuple[CallKey, ChatRequest]]) -> None:
        """Write down a batch that is about to be sent; for the holder of the lease of planning. Raises StoreError."""
        self._remove_orphans()
        path = self._path(record.token, "calls")
        hidden = self.scratch / path.name
        with disk_errors(path):
            make_folder(self._root)
            try:
                with hidden.open("wb") as file:
                    file.writelines(encode_line({"key": key, **request_to_json(request)}) for key, request in calls)
                    file.flush()
                    os.fsync(file.fileno())
                hidden.rename(path)
            finally:
                hidden.unlink(missing_ok=True)
            fsync(self._root)
        self.write(record)

    def write(self, record: BatchRecord) -> None:
        """Write down how far a batch has got. Raises StoreError."""
        write_atomic(self._path(record.token, "json"), checked_json(asdict(record)), self.scratch)

    def calls(self, token: str) -> Iterator[tuple[CallKey, ChatRequest]]:
        """The calls of a batch, in the order of its file. Raises DamagedError, StoreError."""
        for line in self._lines(token):
            body = decode_line(line)
            yield CallKey(body["key"]), request_from_json(body)

    def keys(self, token: str) -> list[CallKey]:
        """The keys of a batch's calls, in the order of its file. Raises DamagedError, StoreError."""
        return [CallKey(line_key(line)) for line in self._lines(token)]

    def remove(self, token: str) -> None:
        """Forget a batch: all that it answered is in the log. Raises StoreError."""
        for kind in ("json", "calls"):
            path = self._path(token, kind)
            with disk_errors(path):
                path.unlink(missing_ok=True)

    def hold(self, token: str = "") -> AbstractContextManager[bool]:
        """Wait for the lease of a batch, or of planning, and hold it."""
        return self._leases.hold(f"batch {token}")

    def _lines(self, token: str) -> Iterator[bytes]:
        path = self._path(token, "calls")
        with disk_errors(path), path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not is_sound(line):
                    raise DamagedError(f"line {number} of {path} is damaged", hint=PAY_AGAIN)
                yield line

    def _remove_orphans(self) -> None:
        """Calls without a record: their process died before the record was written, or while it was removed."""
        for path in self._root.glob("*.calls"):
            if not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)

    def _path(self, token: str, kind: str) -> Path:
        return self._root / f"{token}.{kind}"


def _from_json(body: dict[str, Any]) -> BatchRecord:
    return BatchRecord(**{name: value for name, value in body.items() if name in BatchRecord.__dataclass_fields__})
