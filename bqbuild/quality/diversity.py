"""How varied a set of texts is. Plain functions for reports and python models; none depends on the order of the texts.

Diversity figures depend on the number and the length of the texts: compare sets of equal size.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import xxhash

from bqbuild.quality.words import words


def distinct_n(texts: Iterable[str], size: int = 2) -> float:
    """Distinct runs of `size` words, as a share of all runs (Li et al. 2016). 1: none is there twice; 0: no run."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        found = words(text)
        runs = [tuple(found[start : start + size]) for start in range(len(found) - size + 1)]
        seen.update(runs)
        total += len(runs)
    return len(seen) / total if total else 0.0


def compression_ratio(texts: Iterable[str]) -> float:
    """Bytes before over bytes after compression of the sorted texts (Shaib et al. 2024): higher is more repetitive."""
    data = "\n".join(sorted(texts)).encode("utf-8", "surrogatepass")
    return len(data) / len(zlib.compress(data, 9)) if data else 0.0


def self_similarity(texts: Sequence[str], *, size: int = 3, sample: int = 500, seed: int = 0) -> float:
    """How similar a text is to its nearest neighbour, on average: Jaccard similarity of runs of `size` words.

    Among at most `sample` texts, chosen by hash; equal texts count. 0: nothing in common; 1: every text is there twice.
    """
    chosen = sorted(texts, key=lambda text: (_hash(seed, text), text))[:sample]
    sets = [_runs(text, size) for text in chosen]
    nearest = [0.0] * len(sets)
    for one in range(len(sets)):
        for other in range(one):
            similarity = _jaccard(sets[one], sets[other])
            nearest[one] = max(nearest[one], similarity)
            nearest[other] = max(nearest[other], similarity)
    return math.fsum(nearest) / len(nearest) if len(nearest) > 1 else 0.0


def entropy(labels: Iterable[Hashable]) -> float:
    """Shannon entropy of labels, in bits: the logarithm of how many labels there seem to be."""
    counts = Counter(labels)
    total = sum(counts.values())
    return math.fsum(-count / total * math.log2(count / total) for count in counts.values()) if counts else 0.0


def evenness(labels: Sequence[Hashable]) -> float:
    """Entropy over its maximum for as many different labels; 1 where they are all as frequent, or there is but one."""
    kinds = len(set(labels))
    return entropy(labels) / math.log2(kinds) if kinds > 1 else 1.0


def coverage(labels: Iterable[Hashable], expected: Iterable[Hashable]) -> float:
    """The share of the expected labels that are there at all."""
    wanted = set(expected)
    return len(wanted & set(labels)) / len(wanted) if wanted else 1.0


def _hash(seed: int, text: str) -> int:
    return xxhash.xxh3_64_intdigest(f"{seed}:{text}".encode("utf-8", "surrogatepass"))


def _runs(text: str, size: int) -> frozenset[tuple[str, ...]]:
    found = words(text)
    if len(found) < size:
        return frozenset([tuple(found)] if found else [])
    return frozenset(tuple(found[start : start + size]) for start in range(len(found) - size + 1))


def _jaccard(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    union = len(one | other)
    return len(one & other) / union if union else 1.0
