"""Token sequences packed as a tree, so that what several share at their start is computed once.

The choices of a question share the question, and all questions of a benchmark its few-shot examples:

    Q ── u ── e ── s ── t ─┬─ A ── 1          tokens     Q u e s t A 1 B 2
                           └─ B ── 2          positions  0 1 2 3 4 5 6 5 6

A token sees its ancestors only; the mask says so. One forward pass of the tree gives what one pass a sequence gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Group = Sequence[Sequence[int]]
"""The sequences of one question."""


@dataclass(frozen=True, slots=True)
class Tree:
    """N tokens, each once: `tokens` and `positions` [N], `visible` [N, N], and for each sequence its nodes in order."""

    tokens: list[int]
    positions: list[int]
    visible: npt.NDArray[np.bool_]
    paths: list[list[int]]


class TreeBuilder:
    """Grows a tree sequence by sequence."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._parents: list[int] = []
        self._positions: list[int] = []
        self._children: dict[tuple[int, int], int] = {}
        self._paths: list[list[int]] = []

    def __len__(self) -> int:
        return len(self._tokens)

    def known(self, sequence: Sequence[int]) -> int:
        """How many of its first tokens are in the tree already."""
        node = -1
        for depth, token in enumerate(sequence):
            if (node, token) not in self._children:
                return depth
            node = self._children[node, token]
        return len(sequence)

    def add(self, sequence: Sequence[int]) -> None:
        """Add a sequence; what it shares with earlier ones is there already."""
        node, path = -1, []
        for position, token in enumerate(sequence):
            child = self._children.get((node, token))
            if child is None:
                child = len(self._tokens)
                self._children[node, token] = child
                self._tokens.append(token)
                self._parents.append(node)
                self._positions.append(position)
            node = child
            path.append(node)
        self._paths.append(path)

    def finish(self) -> Tree:
        """The tree of all sequences added."""
        size = len(self._tokens)
        visible = np.zeros((size, size), dtype=np.bool_)
        for node, parent in enumerate(self._parents):  # a parent always comes before its children
            if parent >= 0:
                visible[node] = visible[parent]
            visible[node, node] = True
        return Tree(self._tokens, self._positions, visible, self._paths)


def plant(groups: Sequence[Group], *, size: int) -> Iterator[tuple[list[int], Tree]]:
    """Pack groups of sequences into trees of about `size` tokens; yields the numbers of the groups, and the tree.

    A group is never split; the tree's paths are those of its groups, in that order. Groups that start alike stand
    together once they are sorted, so they end up in one tree.
    """
    builder, members = TreeBuilder(), list[int]()
    for number in sorted(range(len(groups)), key=lambda number: [list(sequence) for sequence in groups[number]]):
        added = tree_size(groups[number]) - max(builder.known(sequence) for sequence in groups[number])
        if members and len(builder) + added > size:
            yield members, builder.finish()
            builder, members = TreeBuilder(), []
        members.append(number)
        for sequence in groups[number]:
            builder.add(sequence)
    if members:
        yield members, builder.finish()


def tree_size(group: Group) -> int:
    """How many tokens the sequences of one group come to, what they share counted once."""
    builder = TreeBuilder()
    for sequence in group:
        builder.add(sequence)
    return len(builder)
