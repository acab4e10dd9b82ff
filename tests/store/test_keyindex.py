"""The index of keys: finds every place, and nothing is lost when it reorganises itself."""

from __future__ import annotations

import numpy as np

from bqbuild.core.hashing import digest
from bqbuild.store.keyindex import KeyIndex


def test_every_place_of_a_key_is_found() -> None:
    index = KeyIndex()
    keys = [digest(number) for number in range(1000)]
    for position, key in enumerate(keys):
        index.add(key, position)
    index.add(keys[3], 5000)
    assert sorted(index.find([keys[3], keys[4], digest("other")])) == sorted(
        [(keys[3], 3), (keys[3], 5000), (keys[4], 4)]
    )


def test_an_index_keeps_everything_when_it_reorganises_itself() -> None:
    index = KeyIndex()
    keys = [f"{number * 2654435761 % 2**64:016x}{'0' * 16}" for number in range(200_000)]
    for position, key in enumerate(keys):
        index.add(key, position)
    asked = keys[::37] + keys[-5:]
    assert {position for _, position in index.find(asked)} == {
        keys.index(keys[0]),
        *range(0, 200_000, 37),
        *range(199_995, 200_000),
    }
    assert not list(index.find([f"{'f' * 32}"]))


def test_keys_that_share_64_bits_are_both_candidates() -> None:
    index = KeyIndex()
    index.add_many(np.array([7, 7, 3], np.uint64), np.array([1, 2, 3], np.uint64))
    index.add("0" * 15 + "7" + "a" * 16, 4)
    assert sorted(position for _, position in index.find(["0" * 15 + "7" + "b" * 16])) == [1, 2, 4]
    assert not list(index.find([]))
