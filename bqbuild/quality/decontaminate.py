"""Which texts share a run of words with a benchmark, and so may have come from it.

Words are normalised (quality.words); a Han character is a word, and LaTeX commands are none: `\\mathrm` and
`\\begin{tabular}` say nothing of where a text comes from. Of a benchmark question that is shorter than the run,
only the whole counts: it is found in a text that says exactly that, not in one that contains it, because short stems
("which of the following is true") are everybody's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from bqbuild.quality.words import Hashes, text_hash, window_hashes, word_hashes, words

_LATEX = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}(?:\s*\{[^{}]*\})?|\\[A-Za-z]+")

Cells = Sequence[Sequence[str]]
"""Texts of rows: one sequence a column."""


class BenchmarkIndex:
    """The runs of `ngram` words of some benchmarks, as sorted hashes; no text is kept."""

    def __init__(self, ngram: int, batches: Iterable[tuple[str, Cells]]) -> None:
        """`batches` are (benchmark's name, texts by column); the first column is the question, whose whole counts."""
        self._ngram = ngram
        self._names: list[str] = []
        self._wholes: dict[int, int] = {}
        runs: list[Hashes] = []
        owners: list[npt.NDArray[np.int32]] = []
        for name, cells in batches:
            if name not in self._names:
                self._names.append(name)
            number = self._names.index(name)
            found = self._add(number, cells)
            runs.append(found)
            owners.append(np.full(len(found), number, np.int32))
        everything = np.concatenate(runs) if runs else np.empty(0, np.uint64)
        self._runs, first = np.unique(everything, return_index=True)
        self._owners = np.concatenate(owners)[first] if owners else np.empty(0, np.int32)

    def reasons(self, cells: Cells) -> list[str | None]:
        """For each row, what it shares with which benchmark, or None. The first run in the row is quoted."""
        columns = [[_plain_words(text) for text in texts] for texts in cells]
        joined = _joined(columns)
        reasons: list[str | None] = [None] * len(joined)
        self._find_runs(joined, reasons)
        for texts in [*columns, joined]:
            self._find_wholes(texts, reasons)
        return reasons

    def _add(self, number: int, cells: Cells) -> Hashes:
        columns = [[_plain_words(text) for text in texts] for texts in cells]
        joined = _joined(columns)
        for text in [*columns[0], *joined]:
            if 0 < len(text) < self._ngram:
                key = text_hash(text)
                self._wholes[key] = min(number, self._wholes.get(key, number))
        hashes, lengths = word_hashes(joined)
        return np.unique(window_hashes(hashes, lengths, self._ngram)[0])

    def _find_runs(self, texts: Sequence[Sequence[str]], reasons: list[str | None]) -> None:
        hashes, lengths = word_hashes(texts)
        runs, rows, starts = window_hashes(hashes, lengths, self._ngram)
        if not len(self._runs) or not len(runs):
            return
        places = np.minimum(np.searchsorted(self._runs, runs), len(self._runs) - 1)
        begins = np.cumsum(lengths) - lengths
        for hit in np.flatnonzero(self._runs[places] == runs).tolist():
            row = int(rows[hit])
            if reasons[row] is None:
                start = int(starts[hit] - begins[row])
                run = texts[row][start : start + self._ngram]
                reasons[row] = f"shares {len(run)} words with {self._names[self._owners[places[hit]]]}: {_quoted(run)}"

    def _find_wholes(self, texts: Sequence[Sequence[str]], reasons: list[str | None]) -> None:
        for row, text in enumerate(texts):
            if reasons[row] is None and 0 < len(text) < self._ngram:
                number = self._wholes.get(text_hash(text))
                if number is not None:
                    reasons[row] = f"is a question of {self._names[number]}: {_quoted(text)}"


def _plain_words(text: str) -> list[str]:
    return words(_LATEX.sub(" ", text) if "\\" in text else text)


def _joined(columns: Sequence[Sequence[Sequence[str]]]) -> list[list[str]]:
    """The words of all columns of each row, end to end."""
    return [[word for text in row for word in text] for row in zip(*columns, strict=True)]


def _quoted(run: Sequence[str]) -> str:
    """Words as a reader would write them: characters that are words of their own without spaces between."""
    spaced = run[0]
    for before, after in pairwise(run):
        close = len(before) == len(after) == 1 and not before.isascii() and not after.isascii()
        spaced += after if close else f" {after}"
    return f"“{spaced}”"
