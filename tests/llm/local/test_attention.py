"""Rows of different lengths in one stream give what transformers gives each of them alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from bqbuild.llm.local.attention import Feed, Prefix, Slots, Step
from bqbuild.llm.local.model import LocalModel

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def reference(tiny_folder: Path):
    """Logits of the last token of a text, by transformers' own eager attention."""
    network = AutoModelForCausalLM.from_pretrained(tiny_folder, attn_implementation="eager", dtype=torch.float32)

    def logits(tokens: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return network(torch.tensor([tokens])).logits[0, -1]

    return logits


def feed(slot: int, tokens: list[int], start: int, prefix: Prefix | None = None) -> Feed:
    return Feed(slot, tokens, range(start, start + len(tokens)), prefix, (len(tokens) - 1,))


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() < TOLERANCE)


def some(count: int, seed: int) -> list[int]:
    return torch.randint(3, 260, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_rows_of_different_lengths_do_not_see_each_other(tiny: LocalModel, reference):
    slots = Slots(3)
    slots.reserve(40)
    rows = [some(7, 1), some(1, 2), some(30, 3)]
    logits = tiny.forward(Step(slots, [feed(slot, row, 0) for slot, row in enumerate(rows)]))
    assert all(near(mine, reference(row)) for mine, row in zip(logits, rows, strict=True))


def test_a_row_goes_on_token_by_token_or_by_several(tiny: LocalModel, reference):
    slots = Slots(2)
    slots.reserve(8)
    first, second = some(8, 1), some(6, 2)
    tiny.forward(Step(slots, [feed(0, first[:5], 0), feed(1, second[:2], 0)]))
    tiny.forward(Step(slots, [feed(0, first[5:6], 5), feed(1, second[2:5], 2)]))
    slots.reserve(20)
    logits = tiny.forward(Step(slots, [feed(0, first[6:], 6), feed(1, second[5:], 5)]))
    assert near(logits[0], reference(first))
    assert near(logits[1], reference(second))


def test_a_shared_prefix_counts_as_if_each_row_had_it(tiny: LocalModel, reference):
    slots = Slots(3)
    slots.reserve(32)
    shared, rows = some(20, 1), [some(4, 2), some(1, 3), some(9, 4)]
    tiny.forward(Step(slots, [feed(0, shared, 0)]))
    prefix = slots.as_prefix(0, tuple(shared), None)
    slots.lengths = [0, 0, 0]
    feeds = [feed(0, rows[0], 20, prefix), feed(1, rows[1], 20, prefix), feed(2, rows[2], 0)]
    logits = tiny.forward(Step(slots, feeds))
    assert near(logits[0], reference(shared + rows[0]))
    assert near(logits[1], reference(shared + rows[1]))
    assert near(logits[2], reference(rows[2]))


def test_a_prefix_can_grow_out_of_another(tiny: LocalModel, reference):
    slots = Slots(1)
    slots.reserve(16)
    base, more, row = some(10, 1), some(6, 2), some(3, 3)
    tiny.forward(Step(slots, [feed(0, base, 0)]))
    parent = slots.as_prefix(0, tuple(base), None)
    slots.lengths = [0]
    tiny.forward(Step(slots, [feed(0, more, 10, parent)]))
    child = slots.as_prefix(0, tuple(base + more), parent)
    slots.lengths = [0]
    assert near(tiny.forward(Step(slots, [feed(0, row, 16, child)]))[0], reference(base + more + row))


def test_branches_of_a_tree_see_their_own_ancestors_only(tiny: LocalModel, reference):
    slots = Slots(1)
    slots.reserve(16)
    prompt, left, right = some(5, 1), some(2, 2), some(1, 3)
    tiny.forward(Step(slots, [feed(0, prompt, 0)]))
    see = torch.tensor(
        [[True] * 5 + [True, False, False], [True] * 5 + [True, True, False], [True] * 5 + [False, False, True]]
    )
    logits = tiny.forward(Step(slots, [Feed(0, [*left, *right], [5, 6, 5], None, (1, 2), see)]))
    assert near(logits[0], reference(prompt + left))
    assert near(logits[1], reference(prompt + right))


def test_a_row_that_moves_to_another_slot_keeps_what_it_has_seen(tiny: LocalModel, reference):
    slots = Slots(3)
    slots.reserve(16)
    row = some(6, 1)
    tiny.forward(Step(slots, [feed(0, some(9, 2), 0), feed(2, row[:5], 0)]))
    slots.move(2, 0)
    assert near(tiny.forward(Step(slots, [feed(0, row[5:], 5)]))[0], reference(row))
