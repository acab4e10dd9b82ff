"""What costly analyses came to, by a digest of all that they read: computed once, and known to later commands.

A finding is a plain JSON value, and the same whoever computes it. It says nothing of where things stand in files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bqbuild.core.hashing import Digest, digest


@dataclass(frozen=True, slots=True)
class Findings:
    """`known` are those of earlier commands, `used` those that were asked for now."""

    known: Mapping[Digest, Any] = field(default_factory=dict)
    used: dict[Digest, Any] = field(default_factory=dict)

    def find(self, what: str, read: Any, analyse: Callable[[], Any]) -> Any:
        """What `analyse` gives; `read` is all that it reads, `what` which analysis it is. What raises is not kept."""
        key = digest([what, read])
        if key not in self.used:
            self.used[key] = self.known[key] if key in self.known else analyse()
        return self.used[key]
