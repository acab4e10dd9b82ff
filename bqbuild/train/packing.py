"""Tokenised documents on disk, and blocks of fixed length cut from them: no padding, no token left out.

The documents of an epoch stand one behind the other in an order drawn from their content, the seed and the epoch, so
the order of the table's rows cannot matter. Block k is the k-th stretch of `seq_len` tokens of that endless stream; it
is computed from k alone, so a resumed run needs no state but the number of its step.

    stream     a a a a a b b b c c c c c c | b b b ...   (next epoch)
    block 0    a a a a a b b b      positions 0 1 2 3 4 0 1 2
    block 1    c c c c c c b b      positions 0 1 2 3 4 5 0 1
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

Unsigned = TypeVar("Unsigned", np.uint8, np.uint32)
Ints = npt.NDArray[np.int64]
IGNORED = -100
"""A target that is not trained on; the value that `cross_entropy` leaves out."""

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class Document:
    """The tokens of one document, and which of them are trained on (None: all but the first)."""

    tokens: list[int]
    trained: list[bool] | None = None


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents as flat arrays: `tokens` [N] and `trained` [N] on disk, `starts` [D + 1] and `keys` [D] in memory."""

    tokens: npt.NDArray[np.uint32]
    trained: npt.NDArray[np.uint8]
    starts: Ints
    keys: npt.NDArray[np.uint64]

    @property
    def documents(self) -> int:
        """The number of documents."""
        return len(self.keys)

    @property
    def size(self) -> int:
        """The number of tokens."""
        return int(self.starts[-1])

    @property
    def digest(self) -> str:
        """What the corpus holds, whatever its order: 32 hexadecimal digits."""
        return xxhash.xxh3_128_hexdigest(np.sort(self.keys).tobytes() + self.starts[-1:].tobytes())


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of the stream: tokens, their positions in their documents, and the tokens that follow; each is [T].

    A target is IGNORED where the token that follows is of another document, or is not trained on.
    """

    inputs: Ints
    positions: Ints
    targets: Ints


def write_corpus(documents: Iterable[Document], folder: Path, name: str) -> Corpus:
    """Write documents to `<folder>/<name>.tokens` and `.trained`; empty ones are left out. Memory is 16 bytes each."""
    starts, keys = array("q", [0]), array("Q")  # plain lists would be four times as large
    folder.mkdir(parents=True, exist_ok=True)
    tokens_path, trained_path = folder / f"{name}.tokens", folder / f"{name}.trained"
    with tokens_path.open("wb") as tokens_file, trained_path.open("wb") as trained_file:
        for document in documents:
            if not document.tokens:
                continue
            tokens = np.asarray(document.tokens, dtype=np.uint32).tobytes()
            trained = np.ones(len(document.tokens), dtype=np.uint8)
            if document.trained is not None:
                trained = np.asarray(document.trained, dtype=np.uint8)
            tokens_file.write(tokens)
            trained_file.write(trained.tobytes())
            starts.append(starts[-1] + len(document.tokens))
            keys.append(xxhash.xxh3_64_intdigest(tokens + trained.tobytes()))
    return Corpus(
        tokens=_mapped(tokens_path, np.uint32, starts[-1]),
        trained=_mapped(trained_path, np.uint8, starts[-1]),
        starts=np.array(starts, dtype=np.int64),
        keys=np.array(keys, dtype=np.uint64),
    )


class Stream:
    """The endless stream of a corpus' documents, readable at any place. Keeps the order of the epoch last read."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        if not corpus.size:
            raise ValueError("a stream needs at least one document")
        self._corpus = corpus
        self._seed = seed
        self._epoch = -1
        self._order: Ints = np.empty(0, dtype=np.int64)
        self._ends: Ints = np.empty(0, dtype=np.int64)

    def block(self, start: int, length: int) -> Block:
        """`length` inputs from token `start` of the stream on, with the token that follows each as its target."""
        tokens, trained, offsets = self._read(start, length + 1)
        # A target is of the same document as its input where the offset goes on counting.
        follows = (offsets[1:] == offsets[:-1] + 1) & (offsets[1:] > 0)
        targets = np.where(follows & (trained[1:] > 0), tokens[1:], IGNORED)
        return Block(inputs=tokens[:-1], positions=_restarted(offsets[:-1]), targets=targets)

    def _read(self, start: int, count: int) -> tuple[Ints, npt.NDArray[np.uint8], Ints]:
        """Tokens, trained flags and offsets in their documents, [count] each, across documents and epochs."""
        corpus = self._corpus
        tokens = np.empty(count, dtype=np.int64)
        trained = np.empty(count, dtype=np.uint8)
        offsets = np.empty(count, dtype=np.int64)
        done = 0
        while done < count:
            epoch, within = divmod(start + done, corpus.size)
            self._enter(epoch)
            place = int(np.searchsorted(self._ends, within, side="right"))
            document = int(self._order[place])
            length = int(corpus.starts[document + 1] - corpus.starts[document])
            offset = within - (int(self._ends[place]) - length)
            taken = min(length - offset, count - done)
            source = slice(int(corpus.starts[document]) + offset, int(corpus.starts[document]) + offset + taken)
            tokens[done : done + taken] = corpus.tokens[source]
            trained[done : done + taken] = corpus.trained[source]
            offsets[done : done + taken] = np.arange(offset, offset + taken)
            done += taken
        return tokens, trained, offsets

    def _enter(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        ranks = _scrambled(self._corpus.keys, self._seed, epoch)
        self._order = np.lexsort((self._corpus.keys, ranks)).astype(np.int64)
        self._ends = np.cumsum(np.diff(self._corpus.starts)[self._order])
        self._epoch = epoch


def _restarted(offsets: Ints) -> Ints:
    """Positions that restart at 0 with every document and at the block's own start: what came before is not seen."""
    count = np.arange(len(offsets))
    begins = np.where(np.r_[True, offsets[1:] == 0], count, 0)
    positions: Ints = count - np.maximum.accumulate(begins)
    return positions


def _scrambled(keys: npt.NDArray[np.uint64], seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    """A rank for every key: splitmix64 over key, seed and epoch. Written out, so that no library can change it."""
    salt = np.uint64(xxhash.xxh3_64_intdigest(f"{seed}:{epoch}".encode()))
    with np.errstate(over="ignore"):
        mixed = (keys ^ salt) + _MIX[0]
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[1]
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[2]
        return mixed ^ (mixed >> np.uint64(31))


def _mapped(path: Path, dtype: type[Unsigned], size: int) -> npt.NDArray[Unsigned]:
    """The file as an array; an empty file cannot be mapped."""
    return np.memmap(path, dtype=dtype, mode="r", shape=(size,)) if size else np.empty(0, dtype=dtype)
