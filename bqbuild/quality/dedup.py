"""Near-duplicates: MinHash sketches name the pairs to look at, their exact Jaccard similarity decides.

    sketch() every row  →  suspects()  →  remember() these rows' shingles  →  duplicates() in order of preference

A row is a duplicate if it is as similar as the threshold, or more, to a row that was kept before it. So the result
depends on the order of preference only, not on the order of the rows, and chains of similar rows do not swallow what is
different. Held in memory: some 100 bytes a row, and the hashed shingles of the suspects; no text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import rensa
import xxhash

from bqbuild.quality.words import Hashes, Positions, shingles, words_and_symbols

RECALL = 0.99
"""The least probability with which a pair that is exactly as similar as the threshold is looked at."""

_SEED = 42
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """How to cut a sketch: the number of bands, and the rows of each (more rows, fewer pairs looked at in vain)."""
    for rows in range(permutations, 1, -1):
        count = permutations // rows
        if 1 - (1 - threshold**rows) ** count >= RECALL:
            return count, rows
    return permutations, 1


@dataclass(slots=True)
class NearDuplicates:
    """The near-duplicates among rows that come in batches; rows are named by their positions, which only grow."""

    threshold: float
    ngram: int = 5
    permutations: int = 128
    _positions: list[Positions] = field(default_factory=list)
    _sketches: list[npt.NDArray[np.uint32]] = field(default_factory=list)
    _sets: dict[int, Hashes] = field(default_factory=dict)
    _set_of: dict[int, int] = field(default_factory=dict)

    def sketch(self, positions: Positions, columns: Sequence[Sequence[str]]) -> None:
        """Sketch rows, given as one list of texts a column."""
        hashes, counts = _row_shingles(columns, self.ngram)
        offsets = np.zeros(len(counts) + 1, np.uint64)
        offsets[1:] = np.cumsum(counts)
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, self.permutations, _SEED)
        digests = np.array(matrix.to_rows(), dtype=np.uint64).reshape(len(counts), self.permutations)
        self._positions.append(np.asarray(positions, dtype=np.int64))
        self._sketches.append(_band_hashes(digests, *bands(self.threshold, self.permutations)))

    def suspects(self) -> Positions:
        """The positions of rows that share a band with another row, in growing order: only they can be duplicates."""
        positions, sketches = self._all()
        shared = np.zeros(len(positions), dtype=bool)
        for band in sketches.T:
            _, where, counts = np.unique(band, return_inverse=True, return_counts=True)
            shared |= counts[where] > 1
        return positions[shared]

    def remember(self, positions: Positions, columns: Sequence[Sequence[str]]) -> None:
        """Keep the shingles of suspects for comparison; equal rows are kept once."""
        hashes, counts = _row_shingles(columns, self.ngram)
        for position, own in zip(positions.tolist(), np.split(hashes, np.cumsum(counts)[:-1]), strict=True):
            members = np.unique(own)
            name = xxhash.xxh3_64_intdigest(members.tobytes())
            self._sets.setdefault(name, members)
            self._set_of[position] = name

    def duplicates(self, order: Positions) -> Iterator[tuple[int, int]]:
        """Pairs (duplicate, the kept row that it repeats), where `order` lists all positions, the preferred first.

        Every suspect must have been remembered. Of several kept rows that are similar enough, the first is named.
        """
        positions, sketches = self._all()
        suspected = np.array(sorted(self._set_of), dtype=np.int64)
        kept_by_band: list[dict[int, list[int]]] = [{} for _ in range(sketches.shape[1])]
        kept_sets: dict[int, int] = {}
        preferred = order[np.isin(order, suspected)]
        rank = dict(zip(preferred.tolist(), range(len(preferred)), strict=True))
        for position, band_hashes in zip(
            preferred.tolist(),
            sketches[np.searchsorted(positions, preferred)],
            strict=True,
        ):
            lists = [kept.setdefault(value, []) for kept, value in zip(kept_by_band, band_hashes.tolist(), strict=True)]
            first = kept_sets.get(self._set_of[position])
            if first is None:
                candidates = sorted({other for kept in lists for other in kept}, key=rank.__getitem__)
                first = next(
                    (other for other in candidates if self._similar(position, other)),
                    None,
                )
            if first is not None:
                yield position, first
                continue
            kept_sets[self._set_of[position]] = position
            for kept in lists:
                kept.append(position)

    def _similar(self, one: int, other: int) -> bool:
        return jaccard(self._sets[self._set_of[one]], self._sets[self._set_of[other]]) >= self.threshold

    def _all(self) -> tuple[Positions, npt.NDArray[np.uint32]]:
        if not self._positions:
            return np.empty(0, np.int64), np.empty((0, 1), np.uint32)
        if len(self._positions) > 1:
            self._positions = [np.concatenate(self._positions)]
            self._sketches = [np.concatenate(self._sketches)]
        return self._positions[0], self._sketches[0]


def jaccard(one: Hashes, other: Hashes) -> float:
    """The share of members that two sorted sets have in common; two empty sets are equal."""
    if not len(one) and not len(other):
        return 1.0
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def shingle_set(text: str, ngram: int) -> Hashes:
    """The sorted set of the hashed runs of `ngram` words and symbols of a text."""
    hashes, _ = shingles([words_and_symbols(text)], ngram)
    return np.unique(hashes)


def _row_shingles(columns: Sequence[Sequence[str]], ngram: int) -> tuple[Hashes, Positions]:
    """The shingles of each row, those of its columns together; no shingle crosses from one column to the next."""
    rows = len(columns[0])
    found = [shingles([words_and_symbols(text) for text in texts], ngram) for texts in columns]
    owners = np.concatenate([np.repeat(np.arange(rows), counts) for _, counts in found])
    order = np.argsort(owners, kind="stable")
    return np.concatenate([hashes for hashes, _ in found])[order], np.bincount(owners, minlength=rows).astype(np.int64)


def _band_hashes(digests: Hashes, count: int, rows: int) -> npt.NDArray[np.uint32]:
    """A 32-bit hash of each band of each sketch: (sketches, permutations) → (sketches, bands).

    32 bits because a chance collision costs one comparison and no more.
    """
    cut = digests[:, : count * rows].reshape(len(digests), count, rows)
    combined = np.zeros((len(digests), count), np.uint64)
    for row in range(rows):
        combined = (combined ^ cut[:, :, row]) * _MULTIPLIER
        combined ^= combined >> np.uint64(32)
    return (combined >> np.uint64(32)).astype(np.uint32)
