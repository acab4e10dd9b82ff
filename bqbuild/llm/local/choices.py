"""Choosing one of a closed set of labels: as constrained decoding would, but with every label weighed to its end.

The labels, each followed by the end of the turn, form a tree of tokens. Where a node has one way on, it costs nothing:
the label can't go elsewhere. Where it branches, the model's probabilities are shared out among the branches. The
product along a label's path is the probability that decoding constrained to the labels writes it; no label is preferred
for being short, and labels that differ in their first token need no pass beyond the prompt's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LabelTree:
    """The tree of some labels' tokens. Node 0 is the prompt's last token; the others come after their parents.

    `tokens`, `depths` and `mask` are of the nodes that have to be fed (all but node 0): a node sees its ancestors and
    itself. `branches` lists, for every node that branches, the node and its ways on; `paths` lists for every label
    the (index of branch, index of way) pairs on its path.
    """

    tokens: tuple[int, ...]
    depths: tuple[int, ...]
    mask: tuple[tuple[bool, ...], ...]
    branches: tuple[tuple[int, tuple[int, ...]], ...]
    paths: tuple[tuple[tuple[int, int], ...], ...]


def label_tree(labels: Sequence[Sequence[int]], end: int) -> LabelTree:
    """The tree of labels given as tokens; `end` ends the turn."""
    whole = [(*label, end) for label in labels]
    ways: dict[Path, list[int]] = {}
    for label in whole:
        for length in range(len(label)):
            known = ways.setdefault(label[:length], [])
            if label[length] not in known:
                known.append(label[length])
    branching = [path for path in ways if len(ways[path]) > 1]
    fed = sorted({path[:length] for path in branching for length in range(1, len(path) + 1)}, key=len)
    node = {path: index for index, path in enumerate([(), *fed])}
    at = {path: index for index, path in enumerate(branching)}
    return LabelTree(
        tokens=tuple(path[-1] for path in fed),
        depths=tuple(len(path) for path in fed),
        mask=tuple(tuple(path[: len(other)] == other for other in fed) for path in fed),
        branches=tuple((node[path], tuple(ways[path])) for path in branching),
        paths=tuple(
            tuple(
                (at[label[:length]], ways[label[:length]].index(label[length]))
                for length in range(len(label))
                if label[:length] in at
            )
            for label in whole
        ),
    )


def label_scores(tree: LabelTree, logits: dict[int, Tensor]) -> Tensor:
    """The log-probability of every label: logits [vocabulary] of each node that branches, by node."""
    shares = [logits[node][list(ways)].double().log_softmax(-1) for node, ways in tree.branches]
    return torch.stack(
        [sum((shares[b][w] for b, w in path), torch.zeros((), dtype=torch.float64)) for path in tree.paths]
    )


def pick_label(scores: Tensor, temperature: float, uniform: float) -> int:
    """The likeliest label (the first of equals), or one drawn by `uniform` in [0, 1) where there is a temperature."""
    if temperature == 0:
        return int(scores.argmax())
    sums = (scores / temperature).softmax(-1).cumsum(-1)
    return min(int(torch.searchsorted(sums, uniform * sums[-1], right=True)), len(scores) - 1)
