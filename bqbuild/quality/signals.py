"""Simple signals of the quality of a text, after the filters of Gopher (arXiv 2112.11446). Pure functions."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable

from bqbuild.config.specs import QualityRule
from bqbuild.quality.words import words

REPEATED_NGRAM = 4
"""Words in the runs that `repeated_ngram_ratio` looks for: loops are caught, idioms are not."""


def symbol_ratio(text: str) -> float:
    """The share of characters, spaces apart, that are neither letters, digits nor marks. 0 for an empty text."""
    visible = [character for character in text if not character.isspace()]
    if not visible:
        return 0.0
    symbols = sum(not character.isalnum() and unicodedata.category(character)[0] != "M" for character in visible)
    return symbols / len(visible)


def repeated_line_ratio(text: str) -> float:
    """The share of non-empty lines that were there before in the text."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def repeated_ngram_ratio(text: str, size: int = REPEATED_NGRAM) -> float:
    """The share of words that lie in a run of `size` words which the text has more than once."""
    found = words(text)
    runs = [tuple(found[start : start + size]) for start in range(len(found) - size + 1)]
    counts = Counter(runs)
    covered = bytearray(len(found))
    for start, run in enumerate(runs):
        if counts[run] > 1:
            covered[start : start + size] = b"\1" * size
    return sum(covered) / len(found) if found else 0.0


def quality_reason(text: str, rule: QualityRule) -> str | None:
    """The first limit of the rule that a text breaks, with the figure, or None."""
    characters = len(text.strip())
    if rule.min_chars is not None and characters < rule.min_chars:
        return f"{characters} characters, fewer than {rule.min_chars}"
    if rule.max_chars is not None and characters > rule.max_chars:
        return f"{characters} characters, more than {rule.max_chars}"
    ratios: tuple[tuple[str, float | None, Callable[[str], float]], ...] = (
        ("symbols", rule.max_symbol_ratio, symbol_ratio),
        ("repeated lines", rule.max_repeated_line_ratio, repeated_line_ratio),
        ("repeated words", rule.max_repeated_ngram_ratio, repeated_ngram_ratio),
    )
    for name, limit, measure in ratios:
        if limit is not None and (ratio := measure(text)) > limit:
            return f"{name} {ratio:.2f}, more than {limit:g}"
    return None
