"""Finds where calls are recorded by their keys, in 20 bytes a call: sorted arrays of the keys' first 64 bits.

Positions are whatever the owner counts in (a byte of a journal, a row of a segment). Two keys may share 64 bits: the
reader of a position compares the whole key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

_FRESH = 1 << 14
_BLOCKS = 8

Words = npt.NDArray[np.uint64]


class KeyIndex:
    """Keys and positions, added in any order. New ones wait in a small dict; full dicts become sorted blocks."""

    def __init__(self) -> None:
        self._fresh: dict[int, list[int]] = {}
        self._fresh_count = 0
        self._blocks: list[tuple[Words, Words]] = []

    def add(self, key: str, position: int) -> None:
        """Remember where the call with this key is."""
        self._fresh.setdefault(_word(key), []).append(position)
        self._fresh_count += 1
        if self._fresh_count >= _FRESH:
            self._freeze()

    def add_many(self, words: Words, positions: Words) -> None:
        """Remember many at once: the first 64 bits of keys, and their positions."""
        order = np.argsort(words, kind="stable")
        self._blocks.append((words[order], positions[order]))

    def find(self, keys: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Pairs of a key and a position that may be its own: none, one, or several for each key."""
        words = [_word(key) for key in keys]
        for key, word in zip(keys, words, strict=True):
            for position in self._fresh.get(word, ()):
                yield key, position
        wanted = np.array(words, dtype=np.uint64)
        for block_words, positions in list(self._blocks):
            first = np.searchsorted(block_words, wanted, side="left")
            last = np.searchsorted(block_words, wanted, side="right")
            for index in np.flatnonzero(last > first).tolist():
                for at in range(int(first[index]), int(last[index])):
                    yield keys[index], int(positions[at])

    def _freeze(self) -> None:
        pairs = [(word, position) for word, positions in self._fresh.items() for position in positions]
        self.add_many(
            np.array([word for word, _ in pairs], np.uint64), np.array([position for _, position in pairs], np.uint64)
        )
        self._fresh, self._fresh_count = {}, 0
        if len(self._blocks) > _BLOCKS:
            words = np.concatenate([block[0] for block in self._blocks])
            positions = np.concatenate([block[1] for block in self._blocks])
            self._blocks = []
            self.add_many(words, positions)


def _word(key: str) -> int:
    return int(key[:16], 16)
