from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bqbuild.quality.sampling import (
    Queue,
    hashes,
    is_heldout,
    queue_order,
    shares,
    split_of,
    take_rows,
    take_sizes,
    whole_shares,
)


def queue(sizes: list[int], *, repeat: int = 1, train: list[bool] | None = None) -> Queue:
    return Queue(np.array(sizes, np.int64), np.array(train or [True] * len(sizes), dtype=bool), repeat)


@pytest.mark.parametrize(
    ("weights", "capacities", "budget", "expected"),
    [
        ([1, 1], [100, 100], 10, [5, 5]),
        ([3, 1], [100, 100], 10, [8, 2]),
        ([1, 1, 1], [100, 100, 100], 10, [4, 3, 3]),
        ([1, 1], [2, 100], 10, [2, 8]),
        ([8, 1, 1], [1, 3, 100], 10, [1, 3, 6]),
        ([1, 0], [100, 100], 10, [10, 0]),
        ([1, 0], [3, 100], 10, [3, 0]),
        ([1, 1], [3, 3], 10, [3, 3]),
        ([0.1, 0.2], [5, 5], 0, [0, 0]),
        ([], [], 5, []),
    ],
    ids=["even", "weighted", "remainder", "short", "twice short", "zero", "zero stays", "all", "no budget", "nothing"],
)
def test_a_budget_is_shared_by_weight_and_shortage_passes_on(
    weights: list[float], capacities: list[int], budget: int, expected: list[int]
) -> None:
    assert whole_shares(weights, capacities, budget) == expected


def test_whole_shares_always_add_up() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        count = int(rng.integers(1, 30))
        weights = rng.random(count).tolist()
        capacities = rng.integers(0, 50, count).tolist()
        budget = int(rng.integers(0, 600))
        given = whole_shares(weights, capacities, budget)
        assert sum(given) == min(budget, sum(capacities))
        assert all(0 <= share <= capacity for share, capacity in zip(given, capacities, strict=True))
        assert sum(shares(weights, capacities, budget)) == pytest.approx(min(budget, sum(capacities)))


def test_a_prefix_of_a_queue_takes_everyone_before_anyone_twice() -> None:
    four = queue([1, 1, 1, 1], repeat=3, train=[True, False, True, True])
    assert four.length == 10
    assert four.copies(2).tolist() == [1, 1, 0, 0]
    assert four.copies(5).tolist() == [2, 1, 1, 1]
    assert four.copies(8).tolist() == [3, 1, 2, 2]
    assert four.copies(10).tolist() == [3, 1, 3, 3]


def test_a_prefix_within_a_size_is_the_longest_one() -> None:
    three = queue([5, 2, 4], repeat=3, train=[True, False, True])
    for budget in range(0, 40):
        places = three.places_within(budget)
        assert three.size_of(places) <= budget
        assert places == three.length or three.size_of(places + 1) > budget
    assert three.size == three.size_of(three.length) == 11 + 2 * 9
    assert [three.size_at(place) for place in range(three.length)] == [5, 2, 4, 5, 4, 5, 4]


def test_a_larger_budget_keeps_what_a_smaller_one_took() -> None:
    queues = [queue([3, 9, 1, 4] * 5, repeat=2), queue([2, 2, 7], repeat=2)]
    rows = [take_rows(queues, [1, 2], budget) for budget in range(40)]
    assert all(small[0] <= large[0] and small[1] <= large[1] for small, large in pairwise(rows))


def test_a_budget_of_sizes_is_kept_and_nearly_spent() -> None:
    rng = np.random.default_rng(1)
    queues = [queue(rng.integers(1, 50, 200).tolist()) for _ in range(5)]
    for budget in (0, 10, 1000, 7777):
        places = take_sizes(queues, [1, 2, 3, 4, 0], budget)
        spent = sum(each.size_of(taken) for each, taken in zip(queues, places, strict=True))
        assert budget - 50 < spent <= budget or budget == 0 == spent
        assert places[4] == 0
    everything = take_sizes(queues, [1, 1, 1, 1, 1], 10**9)
    assert everything == [each.length for each in queues]


def test_rows_are_ranked_by_hash_within_their_stratum() -> None:
    ids = [f"row{number}" for number in range(1000)]
    hashed = hashes(7, ids)
    strata = np.arange(1000) % 2
    order = queue_order(hashed, np.ones(1000), strata)
    assert strata[order].tolist() == [0] * 500 + [1] * 500
    shuffled = np.random.default_rng(0).permutation(1000)
    again = queue_order(hashed[shuffled], np.ones(1000), strata[shuffled])
    assert shuffled[again].tolist() == order.tolist()


def test_heavy_rows_come_early_in_proportion_to_their_weight() -> None:
    ids = [f"row{number}" for number in range(20_000)]
    weights = np.where(np.arange(20_000) % 2 == 0, 3.0, 1.0)
    order = queue_order(hashes(0, ids), weights, np.zeros(20_000, np.int64))
    heavy = np.mean(order[:1000] % 2 == 0)
    assert 0.70 < heavy < 0.80


def test_another_seed_is_another_order() -> None:
    ids = [f"row{number}" for number in range(100)]
    assert hashes(0, ids).tolist() != hashes(1, ids).tolist()


def test_what_is_held_out_depends_on_the_root_alone_and_grows_with_the_fraction() -> None:
    roots = [f"root{number}" for number in range(5000)]
    held = [root for root in roots if is_heldout(root, 0.1)]
    assert 400 < len(held) < 600
    assert all(is_heldout(root, 0.2) for root in held)
    assert not any(is_heldout(root, 0.0) for root in roots)
    assert split_of([held[0]], 0.1) == "heldout"
    assert split_of([held[0], held[1]], 0.1) == "heldout"
    assert split_of([held[0], next(root for root in roots if not is_heldout(root, 0.1))], 0.1) is None
