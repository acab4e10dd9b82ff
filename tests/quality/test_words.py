from __future__ import annotations

import numpy as np
import pytest

from bqbuild.quality.words import flat_text, shingles, text_hash, window_hashes, word_hashes, words, words_and_symbols


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("don't  x_1\n\thigh-school", ["don", "t", "x", "1", "high", "school"]),
        ("Ｈ₂Ｏ ﬁne", ["h2o", "fine"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("水的化学式H2O。", ["水", "的", "化", "学", "式", "h2o"]),
        ("ひらがなカ", ["ひ", "ら", "が", "な", "カ"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("कि की", ["कि", "की"]),
        ("", []),
        ("…—!?", []),
        ("a\0b \ud800", ["a", "b"]),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_text_is_cut_into_normalised_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_composed_and_decomposed_characters_are_the_same_word() -> None:
    assert words("café") == words("cafe\u0301")


def test_mathematical_symbols_tell_formulas_apart() -> None:
    assert words_and_symbols("What is 2 + 3?") != words_and_symbols("What is 2 - 3?")
    assert words_and_symbols("2+3") == words_and_symbols("2 + 3")
    assert words_and_symbols("é 3 ≤ 5") == ["é", "3", "≤", "5"]


def test_windows_never_cross_from_one_text_to_the_next() -> None:
    texts = [["a", "b", "c"], ["d"], [], ["a", "b", "c", "d"]]
    hashes, lengths = word_hashes(texts)
    runs, owners, starts = window_hashes(hashes, lengths, 3)
    assert owners.tolist() == [0, 3, 3]
    assert starts.tolist() == [0, 4, 5]
    assert runs[0] == runs[1] != runs[2]


def test_the_order_of_words_counts_in_a_window() -> None:
    hashes, lengths = word_hashes([["a", "b"], ["b", "a"]])
    runs, _, _ = window_hashes(hashes, lengths, 2)
    assert len(np.unique(runs)) == 2


def test_a_text_shorter_than_a_shingle_is_one_and_an_empty_text_has_none() -> None:
    hashes, counts = shingles([["a", "b", "c"], ["a"], [], ["a", "b"]], 2)
    assert counts.tolist() == [2, 1, 0, 1]
    assert hashes[2] == text_hash(["a"])


def test_cells_of_any_type_become_text() -> None:
    assert flat_text(None) == ""
    assert flat_text(["a", None, 3]) == "a  3"
    assert flat_text({"text": "a", "label": ["b"]}) == "a b"


def test_a_factorial_is_a_symbol_and_an_exclamation_is_not() -> None:
    assert words_and_symbols("5! n! (n+1)!") == ["5", "!", "n", "!", "n", "+", "1", "!"]
    assert words_and_symbols("Stop! Écoute!") == ["stop", "écoute"]
