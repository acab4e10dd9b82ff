"""Packing loses no token, pads nothing, keeps documents apart and does not look at the order of rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bqbuild.train.packing import IGNORED, Document, Stream, write_corpus

DOCUMENTS = [[1, 2, 3, 4, 5], [6, 7, 8], [9], [10, 11, 12, 13, 14, 15]]


def corpus_of(folder: Path, documents: list[list[int]] = DOCUMENTS):
    return write_corpus([Document(tokens) for tokens in documents], folder, "train")


def test_an_epoch_holds_every_token_once_and_targets_follow_inputs_within_documents(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path)
    stream = Stream(corpus, seed=1)
    blocks = [stream.block(start, 5) for start in range(0, corpus.size, 5)]
    inputs = np.concatenate([block.inputs for block in blocks])
    assert sorted(inputs.tolist()) == list(range(1, 16))
    followers = {1: 2, 2: 3, 3: 4, 4: 5, 6: 7, 7: 8, 10: 11, 11: 12, 12: 13, 13: 14, 14: 15}
    targets = np.concatenate([block.targets for block in blocks])
    assert [followers.get(token, IGNORED) for token in inputs.tolist()] == targets.tolist()


def test_positions_restart_with_every_document_and_block(tmp_path: Path) -> None:
    stream = Stream(corpus_of(tmp_path), seed=1)
    for start in range(30):
        block = stream.block(start, 7)
        assert block.positions[0] == 0
        for before, after, joined in zip(block.positions, block.positions[1:], block.targets, strict=False):
            assert after == (before + 1 if joined != IGNORED else 0)


def test_the_order_of_rows_does_not_change_the_stream_but_the_seed_does(tmp_path: Path) -> None:
    one, other = corpus_of(tmp_path / "one"), corpus_of(tmp_path / "other", DOCUMENTS[::-1])
    assert one.digest == other.digest
    assert Stream(one, 3).block(0, 60).inputs.tolist() == Stream(other, 3).block(0, 60).inputs.tolist()
    assert Stream(one, 3).block(0, 60).inputs.tolist() != Stream(one, 4).block(0, 60).inputs.tolist()


def test_epochs_have_different_orders_and_can_be_read_from_anywhere(tmp_path: Path) -> None:
    documents = [[number, number + 100] for number in range(1, 30)]
    stream = Stream(corpus_of(tmp_path, documents), seed=0)
    first, second = stream.block(0, 58).inputs.tolist(), stream.block(58, 58).inputs.tolist()
    assert first != second
    assert sorted(first) == sorted(second)
    straight = stream.block(0, 116).inputs.tolist()
    assert [stream.block(start, 1).inputs[0] for start in range(116)] == straight


def test_tokens_that_are_not_trained_on_are_inputs_but_no_targets(tmp_path: Path) -> None:
    documents = [Document([1, 2, 3, 4], [False, False, True, True])]
    block = Stream(write_corpus(documents, tmp_path, "chat"), 0).block(0, 4)
    assert block.inputs.tolist() == [1, 2, 3, 4]
    assert block.targets.tolist() == [IGNORED, 3, 4, IGNORED]


def test_empty_documents_are_left_out_and_an_empty_corpus_has_no_stream(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, [[], [1, 2]])
    assert (corpus.documents, corpus.size) == (1, 2)
    empty = corpus_of(tmp_path / "empty", [])
    assert empty.size == 0
    with pytest.raises(ValueError, match="at least one"):
        Stream(empty, 0)


def test_equal_documents_both_stay(tmp_path: Path) -> None:
    stream = Stream(corpus_of(tmp_path, [[5, 6], [5, 6], [7]]), seed=0)
    assert sorted(stream.block(0, 5).inputs.tolist()) == [5, 5, 6, 6, 7]
