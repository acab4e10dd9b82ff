from __future__ import annotations

import pytest

from bqbuild.config.specs import QualityRule
from bqbuild.quality.signals import quality_reason, repeated_line_ratio, repeated_ngram_ratio, symbol_ratio


def test_letters_digits_and_marks_of_any_script_are_no_symbols() -> None:
    assert symbol_ratio("水 कि é 42") == 0
    assert symbol_ratio("a#b#") == 0.5
    assert symbol_ratio("") == 0


def test_lines_that_were_there_before_are_counted() -> None:
    assert repeated_line_ratio("a\nb\n\na \na") == 0.5
    assert repeated_line_ratio("") == 0


def test_a_loop_is_told_from_prose() -> None:
    loop = "the answer is that " * 20
    prose = "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen inside the leaves of plants."
    assert repeated_ngram_ratio(loop) == 1
    assert repeated_ngram_ratio(prose) == 0
    assert 0.5 < repeated_ngram_ratio(prose + " " + loop) < 1


@pytest.mark.parametrize(
    ("rule", "text", "reason"),
    [
        ({"min_chars": 5}, "  abc  ", "3 characters, fewer than 5"),
        ({"max_chars": 5}, "abcdef", "6 characters, more than 5"),
        ({"max_symbol_ratio": 0.3}, "a###", "symbols 0.75, more than 0.3"),
        ({"max_repeated_line_ratio": 0.2}, "a\na", "repeated lines 0.50, more than 0.2"),
        ({"max_repeated_ngram_ratio": 0.2}, "a b c d a b c d", "repeated words 1.00, more than 0.2"),
        ({"min_chars": 1, "max_chars": 5, "max_symbol_ratio": 0}, "abc", None),
        ({}, "", None),
    ],
    ids=["short", "long", "symbols", "lines", "words", "within all", "no limit"],
)
def test_a_rule_names_the_first_limit_that_is_broken(rule: dict[str, float], text: str, reason: str | None) -> None:
    assert quality_reason(text, QualityRule.model_validate({"column": "text", **rule})) == reason
