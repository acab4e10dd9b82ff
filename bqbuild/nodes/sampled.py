"""Which rows of a source a sample takes: those of lowest hash, so that a larger sample holds the smaller one."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import xxhash

if TYPE_CHECKING:
    from bqbuild.config.specs import SourceSpec

_SEED = 0x5A4D
"""Apart from all other choices by hash: a sample must not be all held out, say."""


class Sampled(Protocol):
    """A project, of which a sample may be taken."""

    @property
    def sample(self) -> int | None: ...


def sample_size(spec: SourceSpec, project: Sampled) -> int | None:
    """How many rows are taken of a source; None for all of them."""
    return None if spec.sample == "all" else project.sample


def sample_ids(ids: Iterable[str], size: int) -> frozenset[str]:
    """The `size` ids of lowest hash; their order and that of the files do not count."""
    lowest = heapq.nsmallest(size, ((xxhash.xxh3_64_intdigest(identity.encode(), _SEED), identity) for identity in ids))
    return frozenset(identity for _, identity in lowest)
