from __future__ import annotations

import random

import pytest

from bqbuild.quality.diversity import compression_ratio, coverage, distinct_n, entropy, evenness, self_similarity

SAME = ["the cat sat on the mat"] * 10
VARIED = [f"w{number} x{number} y{number} z{number}" for number in range(10)]


def test_repetition_lowers_distinct_n_and_raises_the_other_two() -> None:
    assert distinct_n(SAME) == pytest.approx(0.1)
    assert distinct_n(VARIED) == 1
    assert compression_ratio(SAME) > compression_ratio(VARIED)
    assert self_similarity(SAME) == 1
    assert self_similarity(VARIED) == 0


def test_nothing_has_no_diversity() -> None:
    assert distinct_n([]) == compression_ratio([]) == self_similarity([]) == entropy([]) == 0


def test_entropy_and_evenness_of_labels() -> None:
    assert entropy("aabb") == 1
    assert evenness("aabb") == 1
    assert evenness("aaab") < 1
    assert evenness("aaaa") == 1


def test_coverage_counts_the_expected_labels_that_are_there() -> None:
    assert coverage(["a", "a", "c"], ["a", "b"]) == 0.5


def test_the_order_of_texts_changes_nothing() -> None:
    texts = [f"the {word} of number {number % 7}" for number, word in enumerate(["cat", "dog", "sun", "moon"] * 40)]
    shuffled = list(texts)
    random.Random(1).shuffle(shuffled)
    for measure in (distinct_n, compression_ratio, self_similarity):
        assert measure(shuffled) == measure(texts)
    assert self_similarity(shuffled, sample=20) == self_similarity(texts, sample=20)
