from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from bqbuild.quality.dedup import NearDuplicates, bands, jaccard, shingle_set


def found(
    texts: list[str], *, order: list[int] | None = None, batch: int = 1000, threshold: float = 0.8
) -> dict[int, int]:
    """Duplicates by position, and what they repeat; the rows come in batches, preferred by `order`."""
    near = NearDuplicates(threshold)
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        near.sketch(np.arange(start, start + len(part)), [part])
    suspects = near.suspects()
    for start in range(0, len(suspects), batch):
        chosen = suspects[start : start + batch]
        near.remember(chosen, [[texts[position] for position in chosen.tolist()]])
    return dict(near.duplicates(np.array(range(len(texts)) if order is None else order)))


def sentence(number: int, words: int = 60) -> list[str]:
    rng = random.Random(number)
    return [f"w{rng.randrange(100_000)}" for _ in range(words)]


def test_near_equal_texts_are_found_and_different_ones_are_not() -> None:
    texts = [" ".join(sentence(number)) for number in range(50)]
    texts += [" ".join([*sentence(number), "indeed"]) for number in range(10)]
    assert found(texts) == {50 + number: number for number in range(10)}


def test_case_and_punctuation_do_not_tell_texts_apart() -> None:
    text = "The quick brown fox jumps over the lazy dog"
    assert found([text, text.upper() + "!!!"]) == {1: 0}


def test_one_changed_operator_tells_short_questions_apart() -> None:
    assert found(["What is 12 + 30 ?", "What is 12 - 30 ?"]) == {}


def test_empty_texts_repeat_each_other() -> None:
    assert found(["", "…", "a"]) == {1: 0}


def test_a_text_without_any_row_is_fine() -> None:
    assert found([]) == {}


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_what_is_found_is_as_similar_as_asked_and_little_is_missed(threshold: float) -> None:
    texts = []
    for number in range(150):
        base = sentence(number, 100)
        changed = random.Random(number).randrange(1, 60)
        texts += [" ".join(base), " ".join(base[: 100 - changed] + sentence(number + 10_000, changed))]
    result = found(texts, threshold=threshold)
    sets = [shingle_set(text, 5) for text in texts]
    alike = {odd for odd in range(1, len(texts), 2) if jaccard(sets[odd - 1], sets[odd]) >= threshold}
    assert set(result) <= alike
    assert len(result) >= 0.98 * len(alike)


def test_order_and_batches_of_the_rows_change_nothing() -> None:
    texts = [" ".join(sentence(number % 40)[: 55 + number % 5]) for number in range(200)]
    preferred = sorted(range(200), key=lambda number: texts[number])
    expected = {texts[one] for one in found(texts, order=preferred)}
    for seed in range(3):
        shuffled = list(texts)
        random.Random(seed).shuffle(shuffled)
        order = sorted(range(200), key=lambda number: shuffled[number])
        result = found(shuffled, order=order, batch=7 + seed)
        assert {shuffled[one] for one in result} == expected


def test_chains_do_not_swallow_what_is_different() -> None:
    base = sentence(1, 100)
    steps = [base[: 100 - 5 * number] + sentence(2, 5 * number) for number in range(9)]
    texts = [" ".join(step) for step in steps]
    result = found(texts, threshold=0.8)
    sets = [shingle_set(text, 5) for text in texts]
    assert all(jaccard(sets[one], sets[other]) >= 0.8 for one, other in pairwise(range(9)))
    for duplicate, kept in result.items():
        assert jaccard(sets[duplicate], sets[kept]) >= 0.8
    kept_texts = set(range(9)) - set(result)
    assert len(kept_texts) > 1


def test_the_preferred_row_is_kept_whatever_its_place() -> None:
    text = " ".join(sentence(3))
    assert found([text, text, text], order=[2, 0, 1]) == {0: 2, 1: 2}


def test_bands_fit_the_permutations_and_reach_the_recall() -> None:
    for threshold in (0.1, 0.3, 0.5, 0.8, 0.95, 1.0):
        for permutations in (16, 64, 128, 256):
            count, rows = bands(threshold, permutations)
            assert count * rows <= permutations
            assert rows == 1 or 1 - (1 - threshold**rows) ** count >= 0.99
