"""Which rows a mix takes: ranks by hash, shares of strata, prefixes. Pure, and independent of the order of rows.

A stratum's rows have one order, its *queue*: all rows by rank, then its training rows a second time, a third …, up to
`repeat`. Whatever the budget is counted in, a stratum gives a prefix of its queue, so a larger budget keeps what a
smaller one took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Words64 = npt.NDArray[np.uint64]

_RANGE = 2.0**64


def hashes(seed: int, ids: Sequence[str]) -> Words64:
    """128 bits for each id, evenly spread, as two columns of 64: (ids) → (ids, 2)."""
    digests = b"".join(xxhash.xxh3_128_digest(f"{seed}:{name}".encode()) for name in ids)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64).reshape(len(ids), 2)


def is_heldout(root: str, fraction: float) -> bool:
    """Whether everything that came from a source row is held out: the same in every mix, whatever its seed."""
    return xxhash.xxh3_64_intdigest(f"heldout:{root}".encode()) < fraction * _RANGE


def split_of(roots: Sequence[str], fraction: float) -> str | None:
    """`heldout` or `train`; None where the roots of one row disagree."""
    sides = {is_heldout(root, fraction) for root in roots}
    if len(sides) > 1:
        return None
    return "heldout" if sides == {True} else "train"


def queue_order(hashed: Words64, weights: Floats, strata: Integers) -> Integers:
    """The rows by stratum, and in each by rank: a weighted sample without replacement is a prefix of a stratum."""
    if not len(weights) or np.all(weights == weights[0]):
        return np.lexsort((hashed[:, 1], hashed[:, 0], strata))
    # first the row whose exponential clock of rate `weight` rings first (Efraimidis and Spirakis 2006)
    uniform = (hashed[:, 0].astype(np.float64) + 0.5) / _RANGE
    return np.lexsort((hashed[:, 1], -np.log(uniform) / weights, strata))


def shares(weights: Sequence[float], capacities: Sequence[float], budget: float) -> list[float]:
    """A budget divided in proportion to weights; what a stratum cannot hold goes to the others, again by weight."""
    given = [0.0] * len(weights)
    is_open = [weight > 0 and capacity > 0 for weight, capacity in zip(weights, capacities, strict=True)]
    left = float(budget)
    while left > 0 and any(is_open):
        total = sum(weight for weight, open_ in zip(weights, is_open, strict=True) if open_)
        full = [
            number
            for number, open_ in enumerate(is_open)
            if open_ and capacities[number] <= left * (weights[number] / total)
        ]
        if not full:
            for number, open_ in enumerate(is_open):
                given[number] = left * (weights[number] / total) if open_ else given[number]
            break
        for number in full:
            given[number] = float(capacities[number])
            is_open[number] = False
        left = budget - sum(given)
    return given


def whole_shares(weights: Sequence[float], capacities: Sequence[int], budget: int) -> list[int]:
    """`shares` in whole rows, by largest remainder; equal remainders go to the earlier stratum."""
    exact = shares(weights, capacities, budget)
    whole = [int(share) for share in exact]
    left = min(budget, round(sum(exact))) - sum(whole)
    by_remainder = sorted(range(len(exact)), key=lambda number: (whole[number] - exact[number], number))
    for number in by_remainder:
        if left > 0 and whole[number] < exact[number] and whole[number] < capacities[number]:
            whole[number] += 1
            left -= 1
    return whole


@dataclass(frozen=True, slots=True)
class Queue:
    """The rows of one stratum by rank: their `sizes` (1, or tokens), and which may be taken more than once."""

    sizes: Integers
    is_train: Flags
    repeat: int

    @property
    def length(self) -> int:
        """How many places the queue has."""
        return len(self.sizes) + (self.repeat - 1) * int(self.is_train.sum())

    @property
    def size(self) -> int:
        """The sum of the sizes of all places."""
        return int(self.sizes.sum()) + (self.repeat - 1) * int(self.sizes[self.is_train].sum())

    def places_within(self, budget: float) -> int:
        """The length of the longest prefix whose size is within the budget."""
        once = np.cumsum(self.sizes)
        if not len(once) or once[-1] > budget:
            return int(np.searchsorted(once, budget, side="right"))
        again = np.cumsum(self.sizes[self.is_train])
        if not len(again) or self.repeat == 1:
            return len(once)
        left = budget - float(once[-1])
        rounds = self.repeat - 1 if again[-1] == 0 else min(int(left // float(again[-1])), self.repeat - 1)
        if rounds == self.repeat - 1:
            return self.length
        rest = int(np.searchsorted(again, left - rounds * float(again[-1]), side="right"))
        return len(once) + rounds * len(again) + rest

    def size_at(self, place: int) -> int:
        """The size of the row at a place of the queue."""
        if place < len(self.sizes):
            return int(self.sizes[place])
        again = self.sizes[self.is_train]
        return int(again[(place - len(self.sizes)) % len(again)])

    def size_of(self, places: int) -> int:
        """The size of a prefix."""
        return int((self.copies(places) * self.sizes).sum())

    def copies(self, places: int) -> Integers:
        """How often a prefix has each row."""
        once = min(places, len(self.sizes))
        copies = np.zeros(len(self.sizes), np.int64)
        copies[:once] = 1
        if places > once:
            train = np.flatnonzero(self.is_train)
            rounds, rest = divmod(places - once, len(train))
            copies[train] += rounds
            copies[train[:rest]] += 1
        return copies


def take_rows(queues: Sequence[Queue], weights: Sequence[float], budget: int) -> list[int]:
    """How many places of each queue a budget of rows takes."""
    return whole_shares(weights, [queue.length for queue in queues], budget)


def take_sizes(queues: Sequence[Queue], weights: Sequence[float], budget: int) -> list[int]:
    """How many places of each queue a budget of tokens takes: never more than it. What rows are too long for in one
    stratum goes to the next rows of the strata that got least of their share."""
    quotas = shares(weights, [queue.size for queue in queues], budget)
    places = [queue.places_within(quota) for queue, quota in zip(queues, quotas, strict=True)]
    lacks = [quota - queue.size_of(taken) for queue, quota, taken in zip(queues, quotas, places, strict=True)]
    left = budget - sum(queue.size_of(taken) for queue, taken in zip(queues, places, strict=True))
    open_ = [number for number, quota in enumerate(quotas) if quota > 0 and places[number] < queues[number].length]
    while open_:
        number = min(open_, key=lambda number: (-lacks[number], number))
        size = queues[number].size_at(places[number])
        if size > left:
            open_.remove(number)
            continue
        places[number] += 1
        lacks[number] -= size
        left -= size
        if places[number] == queues[number].length:
            open_.remove(number)
    return places
