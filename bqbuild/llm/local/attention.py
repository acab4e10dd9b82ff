"""Attention over rows of different lengths in one pass: no padding, and a prefix that rows share is kept once.

The tokens of all rows of a step form one stream, [1, tokens], so that every matrix product sees all of them. Only
attention knows where one row ends: a token attends to the prefix that its row shares with others (one product a
prefix, not one a row) and to its own row's suffix, and the two parts are merged by their log-sum-exp.

The function is registered with transformers under `ATTENTION`, which hands it `step=` through the model's keywords;
any causal LM whose attention goes through transformers' attention interface can be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bqbuild.core.errors import BuildError

ATTENTION = "bqbuild_rows"
UNSUPPORTED = ("softcap", "s_aux", "position_bias")
"""Keywords of attention forms that this one does not compute: better refused than ignored."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """Tokens that several rows begin with, and their keys and values: a tensor [kv_heads, tokens, dim] a layer."""

    tokens: tuple[int, ...]
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        """Memory that the keys and values take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.keys, *self.values))


@dataclass(frozen=True, slots=True)
class Feed:
    """What one row adds to a step: tokens, their positions in the row's text, and what they may attend to.

    `mask` [tokens, tokens of the row's suffix so far and these] is None where the tokens simply follow each other.
    `wanted` are indices into `tokens`: where the next token's logits are needed.
    """

    slot: int
    tokens: Sequence[int]
    positions: Sequence[int]
    prefix: Prefix | None
    wanted: Sequence[int]
    mask: Tensor | None = None


class Slots:
    """Keys and values of the rows under way: [slots, kv_heads, capacity, dim] a layer."""

    def __init__(self, slots: int) -> None:
        self.lengths = [0] * slots
        self.capacity = 0
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def reserve(self, capacity: int) -> None:
        """Make room for rows of `capacity` tokens beside their prefix. Raises MemoryError."""
        if capacity <= self.capacity:
            return
        self.capacity = capacity
        for store in (self._keys, self._values):
            for layer, old in enumerate(store):
                store[layer] = self._empty(old)
                for slot, length in enumerate(self.lengths):
                    store[layer][slot, :, :length] = old[slot, :, :length]

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer."""
        return self._keys[index], self._values[index]

    def write(self, layer: int, where: tuple[Tensor, Tensor], key: Tensor, value: Tensor) -> None:
        """Store `key` and `value` [kv_heads, tokens, dim] of one layer at (slots, places)."""
        for store, new in ((self._keys, key), (self._values, value)):
            if layer == len(store):
                store.append(self._empty(new[None]))
            store[layer][where[0], :, where[1]] = new.transpose(0, 1)

    def _empty(self, like: Tensor) -> Tensor:
        """Zeros whose pages are first touched when a row needs them: numpy asks for zeroed memory, torch writes it."""
        shape = (len(self.lengths), like.shape[1], self.capacity, like.shape[3])
        return torch.from_numpy(np.zeros(shape, torch.empty(0, dtype=like.dtype).numpy().dtype))

    def move(self, source: int, target: int) -> None:
        """Put the row of slot `source` into slot `target`."""
        length = self.lengths[source]
        for store in (*self._keys, *self._values):
            store[target, :, :length] = store[source, :, :length]
        self.lengths[target] = length

    def as_prefix(self, slot: int, tokens: tuple[int, ...], parent: Prefix | None) -> Prefix:
        """What slot `slot` holds, after `parent`, as a prefix for other rows."""
        parts: list[tuple[Tensor, ...]] = []
        for stores, before in ((self._keys, parent and parent.keys), (self._values, parent and parent.values)):
            own = [store[slot, :, : self.lengths[slot]] for store in stores]
            parts.append(
                tuple(torch.cat((old, new), 1) for old, new in zip(before, own, strict=True))
                if before
                else tuple(new.clone() for new in own)
            )
        return Prefix(tokens, parts[0], parts[1])

    def release(self) -> None:
        """Give the memory back; the next row reserves anew. Only while no row is under way."""
        self.capacity, self._keys, self._values = 0, [], []


class Step:
    """One forward pass: the stream of tokens that the rows feed, and where each of them belongs."""

    def __init__(self, slots: Slots, feeds: Sequence[Feed]) -> None:
        self.slots = slots
        self.feeds = feeds
        counts = [len(feed.tokens) for feed in feeds]
        before = [slots.lengths[feed.slot] for feed in feeds]
        ends = torch.tensor(counts).cumsum(0).tolist()
        self.spans = [(end - count, end) for count, end in zip(counts, ends, strict=True)]
        slot_of_token = torch.tensor([feed.slot for feed in feeds]).repeat_interleave(torch.tensor(counts))
        places = [place for old, count in zip(before, counts, strict=True) for place in range(old, old + count)]
        self.where = (slot_of_token, torch.tensor(places))
        self.after = [old + count for old, count in zip(before, counts, strict=True)]
        self.tokens = torch.tensor([[token for feed in feeds for token in feed.tokens]])
        self.positions = torch.tensor([[position for feed in feeds for position in feed.positions]])
        wanted = [start + i for (start, _), feed in zip(self.spans, feeds, strict=True) for i in feed.wanted]
        self.wanted = torch.tensor(wanted, dtype=torch.long)
        self.groups = self._groups()
        self.long = [index for index, count in enumerate(counts) if count > 1]
        self.short = [index for index, count in enumerate(counts) if count == 1]
        self._prepare_short()
        self.masks = {index: self._mask(index) for index in self.long}

    def finish(self) -> None:
        """Count the tokens as held by their slots; after the forward pass."""
        for feed, after in zip(self.feeds, self.after, strict=True):
            self.slots.lengths[feed.slot] = after

    def _groups(self) -> list[tuple[Prefix, Tensor | slice]]:
        """Each prefix in use, and the tokens of the stream that follow it."""
        members: dict[int, tuple[Prefix, list[int]]] = {}
        for (start, end), feed in zip(self.spans, self.feeds, strict=True):
            if feed.prefix is not None:
                members.setdefault(id(feed.prefix), (feed.prefix, []))[1].extend(range(start, end))
        total = self.spans[-1][1]
        return [
            (prefix, slice(None) if len(indices) == total else torch.tensor(indices))
            for prefix, indices in members.values()
        ]

    def _prepare_short(self) -> None:
        """Rows that feed one token are attended to together: their slots, and a bias that hides what they lack."""
        self.short_tokens = torch.tensor([self.spans[index][0] for index in self.short])
        slots = [self.feeds[index].slot for index in self.short]
        in_order = slots == list(range(len(slots)))
        self.short_slots: Tensor | slice = slice(0, len(slots)) if in_order else torch.tensor(slots)
        lengths = torch.tensor([self.after[index] for index in self.short])
        self.short_reach = int(lengths.max()) if self.short else 0
        hidden = torch.arange(self.short_reach) >= lengths[:, None]
        self.short_bias = torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))[:, None, None]

    def _mask(self, index: int) -> Tensor:
        """Added to the scores of a row that feeds several tokens: [tokens, suffix], 0 or -inf."""
        feed, after = self.feeds[index], self.after[index]
        count = len(feed.tokens)
        seen = feed.mask
        if seen is None:
            seen = torch.arange(after) <= torch.arange(after - count, after)[:, None]
        return torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))


@dataclass(slots=True)
class _Part:
    """Attention over some of the keys, not yet normalised: maxima and sums of the weights, and weighted values."""

    top: Tensor
    total: Tensor
    out: Tensor


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    step: Step,
    scaling: float,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [1, heads, tokens, dim] to an output [1, tokens, heads, dim]."""
    for name in UNSUPPORTED:
        if others.get(name) is not None:
            raise BuildError(f"the embedded provider cannot run this model: its attention uses `{name}`")
    layer: int = module.layer_idx  # type: ignore[assignment]  # every attention module of transformers has it
    step.slots.write(layer, step.where, key[0], value[0])
    heads, tokens, dim = query.shape[1:]
    q = (query[0] * scaling).view(key.shape[1], heads // key.shape[1], tokens, dim)
    part = _suffix_part(q, step, layer, value.shape[-1])
    for prefix, members in step.groups:
        _merge_prefix(part, q, prefix, members, layer)
    out = part.out / part.total[..., None]
    return out.view(heads, tokens, -1).transpose(0, 1)[None], None


def _suffix_part(q: Tensor, step: Step, layer: int, dim: int) -> _Part:
    """Each token over its own row: q [kv_heads, group, tokens, dim]."""
    keys, values = step.slots.layer(layer)
    part = _Part(q.new_empty(q.shape[:3]), q.new_empty(q.shape[:3]), q.new_empty((*q.shape[:3], dim)))
    if step.short:
        reach = step.short_reach
        k, v = keys[step.short_slots, :, :reach], values[step.short_slots, :, :reach]
        scores = q[:, :, step.short_tokens].permute(2, 0, 1, 3) @ k.transpose(2, 3) + step.short_bias
        one = _weigh(scores, v)
        part.top[:, :, step.short_tokens] = one.top.permute(1, 2, 0)
        part.total[:, :, step.short_tokens] = one.total.permute(1, 2, 0)
        part.out[:, :, step.short_tokens] = one.out.permute(1, 2, 0, 3)
    for index in step.long:
        (start, end), slot, after = step.spans[index], step.feeds[index].slot, step.after[index]
        k, v = keys[slot, :, None, :after], values[slot, :, None, :after]
        one = _weigh(q[:, :, start:end] @ k.transpose(2, 3) + step.masks[index], v)
        part.top[:, :, start:end], part.total[:, :, start:end], part.out[:, :, start:end] = one.top, one.total, one.out
    return part


def _merge_prefix(part: _Part, q: Tensor, prefix: Prefix, members: Tensor | slice, layer: int) -> None:
    """Add the prefix to what its members' tokens have attended to, in place."""
    mine = q[:, :, members]
    flat = mine.reshape(q.shape[0], -1, q.shape[3])
    one = _weigh(flat @ prefix.keys[layer].transpose(1, 2), prefix.values[layer])
    shape = mine.shape[:3]
    top, total, out = one.top.view(shape), one.total.view(shape), one.out.view(*shape, -1)
    highest = torch.maximum(top, part.top[:, :, members])
    new, old = torch.exp(top - highest), torch.exp(part.top[:, :, members] - highest)
    part.total[:, :, members] = total * new + part.total[:, :, members] * old
    part.out[:, :, members] = out * new[..., None] + part.out[:, :, members] * old[..., None]
    part.top[:, :, members] = highest


def _weigh(scores: Tensor, values: Tensor) -> _Part:
    """Scores [..., queries, keys] and values [..., keys, dim] to an unnormalised part."""
    top = scores.amax(-1)
    weights = scores.sub_(top[..., None]).exp_()
    return _Part(top, weights.sum(-1), weights @ values)
