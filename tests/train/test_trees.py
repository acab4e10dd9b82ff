"""Trees hold what sequences share once, and show every token its own sequence only."""

from __future__ import annotations

from bqbuild.train.trees import TreeBuilder, plant, tree_size


def test_a_shared_start_is_in_the_tree_once() -> None:
    builder = TreeBuilder()
    for sequence in ([1, 2, 3], [1, 2, 4, 5], [9]):
        builder.add(sequence)
    tree = builder.finish()
    assert tree.tokens == [1, 2, 3, 4, 5, 9]
    assert tree.positions == [0, 1, 2, 2, 3, 0]
    assert tree.paths == [[0, 1, 2], [0, 1, 3, 4], [5]]


def test_a_token_sees_its_ancestors_and_itself_only() -> None:
    builder = TreeBuilder()
    sequences = [[1, 2, 3], [1, 2, 4, 5], [1, 6], [9]]
    for sequence in sequences:
        builder.add(sequence)
    tree = builder.finish()
    for path in tree.paths:
        for depth, node in enumerate(path):
            assert [other for other in range(len(tree.tokens)) if tree.visible[node, other]] == path[: depth + 1]


def test_planting_keeps_groups_whole_and_every_sequence_readable() -> None:
    groups = [[[question, 50, choice] for choice in range(60, 64)] for question in range(20)]
    seen: list[int] = []
    for members, tree in plant(groups, size=30):
        assert len(tree.tokens) <= 30
        expected = [sequence for number in members for sequence in groups[number]]
        assert [[tree.tokens[node] for node in path] for path in tree.paths] == expected
        seen += members
    assert sorted(seen) == list(range(20))


def test_groups_with_a_common_prefix_share_it_within_a_tree() -> None:
    prefix = list(range(100))
    groups = [[[*prefix, 200 + question, choice] for choice in (1, 2)] for question in range(10)]
    (planted,) = plant(groups, size=130)
    assert len(planted[1].tokens) == 100 + 10 * 3


def test_a_group_larger_than_a_tree_has_one_of_its_own() -> None:
    groups = [[list(range(50))], [[1, 2]]]
    assert [len(tree.tokens) for _, tree in plant(groups, size=10)] == [50, 2]


def test_sequences_may_be_empty_and_groups_none() -> None:
    assert list(plant([], size=10)) == []
    ((members, tree),) = plant([[[]]], size=10)
    assert (members, tree.tokens, tree.paths) == ([0], [], [[]])


def test_the_size_of_a_group_counts_what_it_shares_once() -> None:
    assert tree_size([[1, 2, 3], [1, 2, 4]]) == 4
