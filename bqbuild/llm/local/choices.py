"""Choosing one of a closed set of labels by how likely each is, in one pass over all of them.

A label's score is the log-probability of its tokens after the prompt, less the same after a prompt without content:
small models prefer some labels whatever they are shown, and long labels are unlikely everywhere (domain-conditional
PMI, Holtzman et al. 2021, arXiv 2104.08315; the prompt without content as in Zhao et al. 2021, arXiv 2102.09690).
The few-shot examples show what of the last message is form and what is content: see `without_content`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bqbuild.core.records import Message

NO_CONTENT = ("N/A", "", "[…]")
"""What stands for content where there is none; the scores of all are averaged."""

HEAD = re.compile(r".*(?:\n|[:：]\s*)", re.DOTALL)
TAIL = re.compile(r"\n.*", re.DOTALL)
"""Form ends after a colon or a line, and begins again with a line: `Text: …`, a cue such as `Subject:` at the end."""

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LabelTree:
    """The tree of some labels' tokens, so that what they share runs once.

    Node 0 is the prompt's last token; `tokens`, `depths` and `mask` (which node sees which) are of the nodes after it.
    `paths` lists for every label its (node, next token) pairs.
    """

    tokens: tuple[int, ...]
    depths: tuple[int, ...]
    mask: tuple[tuple[bool, ...], ...]
    paths: tuple[tuple[tuple[int, int], ...], ...]


def label_tree(labels: Sequence[Sequence[int]], end: int) -> LabelTree:
    """The tree of labels given as tokens. A label that another begins with is weighed with the `end` of the turn."""
    plain = [tuple(label) for label in labels]
    begun = {label[:length] for label in plain for length in range(len(label))}
    whole = [(*label, end) if label in begun else label for label in plain]
    inner = sorted({label[:length] for label in whole for length in range(1, len(label))}, key=len)
    node = {path: index for index, path in enumerate([(), *inner])}
    return LabelTree(
        tokens=tuple(path[-1] for path in inner),
        depths=tuple(len(path) for path in inner),
        mask=tuple(tuple(path[: len(other)] == other for other in inner) for path in inner),
        paths=tuple(tuple((node[label[:i]], token) for i, token in enumerate(label)) for label in whole),
    )


def label_scores(tree: LabelTree, logits: Mapping[int, Tensor]) -> Tensor:
    """The log-probability of every label: from the logits [vocabulary] after each node."""
    shares = {node: values.double().log_softmax(-1) for node, values in logits.items()}
    nothing = torch.zeros((), dtype=torch.float64)
    return torch.stack([sum((shares[node][token] for node, token in path), nothing) for path in tree.paths])


def pick_label(scores: Tensor, temperature: float, uniform: float) -> int:
    """The likeliest label (the first of equals), or one drawn by `uniform` in [0, 1) where there is a temperature."""
    if temperature == 0:
        return int(scores.argmax())
    sums = (scores / temperature).softmax(-1).cumsum(-1)
    return min(int(torch.searchsorted(sums, uniform * sums[-1], right=True)), len(scores) - 1)


def without_content(messages: Sequence[Message]) -> list[tuple[Message, ...]]:
    """The prompt with nothing to judge in its last message: what that begins and ends with in every example stays.

    Empty where no example of a user message comes before the last one: form can't be told from content then.
    """
    users = [message.content for message in messages if message.role == "user"]
    if len(users) < 2 or messages[-1].role != "user":
        return []
    head = HEAD.match(_common(users))
    begin = head.group() if head else ""
    tail = TAIL.search(_common([text[len(begin) :][::-1] for text in users])[::-1])
    end = tail.group() if tail else ""
    return [(*messages[:-1], replace(messages[-1], content=f"{begin}{nothing}{end}")) for nothing in NO_CONTENT]


def _common(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    first, last = min(texts), max(texts)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]
