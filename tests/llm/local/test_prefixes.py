"""Which beginnings of prompts are computed once."""

from __future__ import annotations

import torch

from bqbuild.llm.local.attention import Prefix
from bqbuild.llm.local.prefixes import PrefixCache, shared_prefixes


def prompt(*parts: tuple[int, int]) -> tuple[int, ...]:
    """Runs of one token: (token, how many)."""
    return tuple(token for token, count in parts for _ in range(count))


def kept(tokens: tuple[int, ...]) -> Prefix:
    return Prefix(tokens, (torch.zeros(1, len(tokens), 1),), (torch.zeros(1, len(tokens), 1),))


def test_what_all_prompts_begin_with_is_shared():
    prompts = [prompt((1, 100), (10 + row, 5)) for row in range(10)]
    assert shared_prefixes(prompts) == [prompt((1, 100))]


def test_a_short_beginning_of_few_prompts_is_not_worth_it():
    assert shared_prefixes([prompt((1, 50), (2, 1)), prompt((1, 50), (3, 1))]) == []
    assert shared_prefixes([]) == []


def test_a_longer_beginning_of_some_comes_after_the_one_of_all():
    cells = [prompt((1, 200), (20 + text, 150), (50 + grade, 3)) for text in range(2) for grade in range(5)]
    assert shared_prefixes(cells) == [
        prompt((1, 200)),
        prompt((1, 200), (20, 150)),
        prompt((1, 200), (21, 150)),
    ]


def test_equal_prompts_share_all_but_the_last_token():
    assert shared_prefixes([prompt((1, 200), (2, 1))] * 3) == [prompt((1, 200))]


def test_what_is_known_already_does_not_count_as_saved():
    prompts = [prompt((1, 100), (10 + row, 5)) for row in range(10)]
    assert shared_prefixes(prompts, known=100) == []


def test_the_longest_kept_prefix_that_leaves_a_token_is_found():
    cache = PrefixCache(1 << 20)
    short, long = kept(prompt((1, 10))), kept(prompt((1, 10), (2, 10)))
    cache.keep(short)
    cache.keep(long)
    assert cache.longest(prompt((1, 10), (2, 11))) is long
    assert cache.longest(prompt((1, 10), (2, 10))) is short
    assert cache.longest(prompt((3, 10))) is None


def test_prompts_that_come_one_by_one_are_remembered():
    cache = PrefixCache(1 << 20)
    for row in range(3):
        mine = prompt((1, 100), (10 + row, 5))
        cache.expect(mine)
        missing = cache.missing([mine])
    assert missing == [prompt((1, 100))]


def test_a_prefix_of_other_prompts_is_not_computed_for_these():
    cache = PrefixCache(1 << 20)
    for row in range(5):
        cache.expect(prompt((1, 100), (10 + row, 5)))
    alone = prompt((2, 300))
    cache.expect(alone)
    assert cache.missing([alone]) == []


def test_the_least_recently_used_prefix_goes_first():
    first, second, third = (kept(prompt((token, 10))) for token in (1, 2, 3))
    cache = PrefixCache(2 * first.bytes)
    cache.keep(first)
    cache.keep(second)
    assert cache.longest(prompt((1, 11))) is first
    cache.keep(third)
    assert cache.longest(prompt((2, 11))) is None
    assert cache.longest(prompt((1, 11))) is first
