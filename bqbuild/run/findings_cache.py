"""Findings of a project kept between commands, whichever way it is asked: beside the outlines, and signed as they are.

Unlike an outline they outlive an edit: each stands under a digest of all that its analysis read, so that what the edit
left alone is found again. What counts besides is the program that analysed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from bqbuild.config.secrets import Secrets
from bqbuild.core.findings import Findings
from bqbuild.run.local_key import read_signed, write_signed

FORMAT = "findings 1"
KEPT = 16
"""Commands that found something new, after which a finding goes that none of them asked for."""


class FindingsCache:
    """The file of one project's findings. `key` signs it; without one there is none. `program` is what analyses."""

    def __init__(self, path: Path, key: bytes | None, program: Sequence[Any]) -> None:
        self._path = path
        self._key = key
        self._program = list(program)
        self._unused: dict[str, int] = {}

    def read(self) -> Findings:
        """What earlier commands found; nothing where that does not count."""
        try:
            document = read_signed(self._path, self._key) if self._key is not None else None
        except OSError:
            return Findings()
        if document is None or document.get("format") != FORMAT or document.get("program") != self._program:
            return Findings()
        self._unused = document["unused"]
        return Findings(document["found"])

    def keep(self, findings: Findings, secrets: Secrets, program: Sequence[Any]) -> None:
        """Write what was found, where something is new, no secret shows in it, and the program is what it was."""
        if self._key is None or list(program) != self._program or findings.used.keys() <= findings.known.keys():
            return
        unused = {name: 0 if name in findings.used else self._unused.get(name, 0) + 1 for name in findings.known}
        unused = {name: age for name, age in unused.items() if 0 < age <= KEPT}
        found = {**{name: findings.known[name] for name in unused}, **findings.used}
        document = {"format": FORMAT, "program": self._program, "found": found, "unused": unused}
        try:
            text = orjson.dumps(document).decode()
            if secrets.redact(text) == text:
                write_signed(self._path, self._key, document)
        except (OSError, TypeError):  # orjson refuses what UTF-8 cannot hold
            return
