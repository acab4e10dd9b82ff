"""Text as words, and words as hashes: what dedup, decontamination and the signals compare.

A word is a run of letters, digits and marks; a Han or kana character is a word of its own, as is a letter of the other
scripts that are written without spaces. Case, width and compatibility forms (NFKC) do not count.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

# Scripts written without spaces: Thai, Lao, Myanmar, Khmer, kana, Han with its extensions and compatibility forms.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)

_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")

_ASCII_SYMBOLS = re.escape("+-*/^=<>%&|~")
_FACTORIAL = r"(?<=[0-9)])!|(?<=\b[a-z])!"
_ASCII_WORD = re.compile("[a-z0-9]+")
_ASCII_WORD_OR_SYMBOL = re.compile(f"[a-z0-9]+|[{_ASCII_SYMBOLS}]|{_FACTORIAL}")

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def words(text: str) -> list[str]:
    """The words of a text, normalised; punctuation and symbols are left out."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    spaced = _spaced(text)
    return _word_pattern(_has_marks(spaced)).findall(spaced)


def words_and_symbols(text: str) -> list[str]:
    """The words of a text and its mathematical symbols, each on its own: `2 + 3` is not `2 - 3`."""
    if text.isascii():
        return _ASCII_WORD_OR_SYMBOL.findall(text.lower())
    spaced = _spaced(text)
    return _word_or_symbol_pattern(_has_marks(spaced)).findall(spaced)


def word_hashes(texts: Iterable[Sequence[str]]) -> tuple[Hashes, Positions]:
    """The hashes of all words of all texts, end to end, and the number of words of each text."""
    known = _Hashes()
    lengths: list[int] = []
    flat: list[int] = []
    for text in texts:
        lengths.append(len(text))
        flat.extend(map(known.__getitem__, text))
    return np.array(flat, dtype=np.uint64), np.array(lengths, dtype=np.int64)


def window_hashes(hashes: Hashes, lengths: Positions, size: int) -> tuple[Hashes, Positions, Positions]:
    """One hash for every run of `size` words inside a text: the hashes, the number of the text that each is from, and
    the index in `hashes` where each begins. Shorter texts have none."""
    count = len(hashes) - size + 1
    if count <= 0:
        return np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64)
    combined = np.zeros(count, np.uint64)
    for offset in range(size):
        combined = combined * _MULTIPLIER + hashes[offset : offset + count]
    owners = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    starts = np.flatnonzero(owners[:count] == owners[size - 1 :])
    return _mixed(combined[starts]), owners[starts], starts


def shingles(texts: Sequence[Sequence[str]], size: int) -> tuple[Hashes, Positions]:
    """The runs of `size` words of each text as hashes, and how many each has; a shorter text is one run, and a text
    without words has none."""
    hashes, lengths = word_hashes(texts)
    runs, owners, _ = window_hashes(hashes, lengths, size)
    short = np.flatnonzero((lengths > 0) & (lengths < size))
    whole = np.array([text_hash(texts[number]) for number in short.tolist()], dtype=np.uint64)
    owners = np.concatenate([owners, short])
    order = np.argsort(owners, kind="stable")
    return np.concatenate([runs, whole])[order], np.bincount(owners, minlength=len(texts)).astype(np.int64)


def text_hash(text: Sequence[str]) -> int:
    """One hash of a whole sequence of words (no word contains a space)."""
    return xxhash.xxh3_64_intdigest(" ".join(text).encode("utf-8", "surrogatepass"))


def flat_text(value: Any) -> str:
    """A cell as text: strings as they are, the members of lists and structs one after the other, NULL as nothing."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return " ".join(flat_text(item) for item in value.values())
    if isinstance(value, list | tuple):
        return " ".join(flat_text(item) for item in value)
    return str(value)


class _Hashes(dict[str, int]):
    """Hashes of words, each computed once a batch."""

    def __missing__(self, word: str) -> int:
        self[word] = value = xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        return value


def _mixed(hashes: Hashes) -> Hashes:
    """Spread the bits of a polynomial, whose low ones are weak (the finaliser of splitmix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * _MIX_1
    hashes = (hashes ^ (hashes >> np.uint64(27))) * _MIX_2
    return hashes ^ (hashes >> np.uint64(31))


def _spaced(text: str) -> str:
    """The text normalised, with every character that is a word by itself set apart."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("_", " ")
    return _UNSPACED_CHARACTER.sub(lambda found: f" {found[0]} ", folded)


def _has_marks(text: str) -> bool:
    return not _marks().isdisjoint(set(text))


@cache
def _marks() -> frozenset[str]:
    return frozenset(_characters("Mn", "Mc", "Me"))


@cache
def _word_pattern(marks: bool) -> re.Pattern[str]:
    return re.compile(_word_expression(marks))


@cache
def _word_or_symbol_pattern(marks: bool) -> re.Pattern[str]:
    # Sm are ± ÷ √ ∑ ≤ and the like; these ASCII marks are mathematics as well
    return re.compile(f"{_word_expression(marks)}|[{re.escape(_characters('Sm'))}{_ASCII_SYMBOLS}]|{_FACTORIAL}")


def _word_expression(marks: bool) -> str:
    # `\w` leaves out combining marks, without which Hindi words would fall apart into equal pieces; as a set of 2,000
    # characters costs five times the time, it is used for texts that have any
    return rf"[\w{re.escape(_characters('Mn', 'Mc', 'Me'))}]+" if marks else r"\w+"


@cache
def _characters(*categories: str) -> str:
    """All characters of some Unicode categories."""
    every = (chr(code) for code in range(0x20000))
    return "".join(character for character in every if unicodedata.category(character) in categories)
