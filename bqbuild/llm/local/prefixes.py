"""Which beginnings of prompts are worth computing once, and the ones that were. The deciding is pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence

from bqbuild.llm.local.attention import Prefix

Tokens = tuple[int, ...]

MIN_SAVED = 128
"""Tokens of prefill that a prefix must save over its users: each one costs every later step a little."""

RECENT = 256
"""How many prompts are remembered, waiting or done, as a sign of what is yet to come."""


def shared_prefixes(prompts: Iterable[Tokens], known: int = 0) -> list[Tokens]:
    """The beginnings that save at least MIN_SAVED tokens among `prompts`, shorter before longer.

    The first `known` tokens, common to all, count as had already. A beginning is never a whole prompt: the last token
    of a prompt must run, for its logits.
    """
    return list(dict.fromkeys(_split(sorted(prompts), known)))


def _split(group: Sequence[Tokens], known: int) -> Iterable[Tokens]:
    """The beginnings worth having in a sorted group whose first `known` tokens are had."""
    if len(group) < 2:
        return
    common = _common(group[0], group[-1])
    usable = min(common, min(len(prompt) for prompt in group) - 1)
    if (len(group) - 1) * (usable - known) >= MIN_SAVED:
        yield group[0][:usable]
        known = usable
    branches: dict[int, list[Tokens]] = {}
    for prompt in group:
        if len(prompt) > common:
            branches.setdefault(prompt[common], []).append(prompt)
    if len(branches) > 1:
        for branch in branches.values():
            yield from _split(branch, known)


def _common(first: Tokens, last: Tokens) -> int:
    """How many tokens two prompts begin with together."""
    pairs = enumerate(zip(first, last, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(first), len(last)))


class PrefixCache:
    """The prefixes that were computed, as many as fit in `max_bytes`, the least recently used going first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Tokens, Prefix] = OrderedDict()
        self._recent: deque[Tokens] = deque(maxlen=RECENT)

    def expect(self, prompt: Tokens) -> None:
        """Remember a prompt that is to run: what it shares with others is worth keeping."""
        self._recent.append(prompt)

    def longest(self, tokens: Tokens) -> Prefix | None:
        """The longest kept prefix of `tokens` that leaves at least one token."""
        fits = [kept for kept in self._kept if _begins(tokens, kept)]
        if not fits:
            return None
        best = max(fits, key=len)
        self._kept.move_to_end(best)
        return self._kept[best]

    def missing(self, prompts: Sequence[Tokens]) -> list[Tokens]:
        """Prefixes of `prompts` that should be computed before they run, shorter before longer."""
        groups: dict[Tokens, list[Tokens]] = {}
        for prompt in self._recent:
            known = self.longest(prompt)
            groups.setdefault(known.tokens if known else (), []).append(prompt)
        found = [tokens for known, group in groups.items() for tokens in shared_prefixes(group, len(known))]
        return sorted((tokens for tokens in found if any(_begins(prompt, tokens) for prompt in prompts)), key=len)

    def keep(self, prefix: Prefix) -> None:
        """Add a computed prefix and drop the oldest ones that no longer fit."""
        self._kept[prefix.tokens] = prefix
        total = sum(kept.bytes for kept in self._kept.values())
        while total > self._max_bytes and len(self._kept) > 1:
            total -= self._kept.popitem(last=False)[1].bytes


def _begins(prompt: Tokens, tokens: Tokens) -> bool:
    return len(prompt) > len(tokens) and prompt[len(tokens) - 1] == tokens[-1] and prompt[: len(tokens)] == tokens
