"""The tree of labels, and what is left of a prompt without its content."""

from __future__ import annotations

import math

import pytest
import torch

from bqbuild.core.records import Message
from bqbuild.llm.local.choices import NO_CONTENT, label_scores, label_tree, pick_label, without_content

END = 9


def test_labels_of_one_token_need_no_pass_of_their_own():
    assert label_tree([[1], [2], [3]], END).tokens == ()


def test_what_labels_share_is_fed_once():
    tree = label_tree([[1, 2, 3], [1, 2, 4], [5, 6]], END)
    assert tree.tokens == (1, 5, 2)
    assert tree.depths == (1, 1, 2)
    assert tree.mask == ((True, False, False), (False, True, False), (True, False, True))


def test_a_label_that_another_begins_with_is_weighed_with_its_end():
    tree = label_tree([[1], [1, 2]], END)
    assert tree.tokens == (1,)
    assert tree.paths == (((0, 1), (1, END)), ((0, 1), (1, 2)))


def test_a_score_is_the_log_probability_of_the_labels_tokens():
    tree = label_tree([[1], [2, 3]], END)
    first, second = torch.zeros(10), torch.zeros(10)
    first[2] = math.log(4)
    scores = label_scores(tree, {0: first, 1: second})
    assert scores.tolist() == pytest.approx([math.log(1 / 13), math.log(4 / 13 / 10)])


def test_the_likeliest_label_is_picked_and_the_first_of_equals():
    assert pick_label(torch.tensor([-3.0, -1.0, -1.0]), 0, 0.99) == 1


def test_with_a_temperature_labels_are_drawn_by_their_shares():
    scores = torch.log(torch.tensor([0.25, 0.75]))
    assert [pick_label(scores, 1.0, number) for number in (0.0, 0.2, 0.3, 0.999)] == [0, 0, 1, 1]


def chat(*texts: str) -> list[Message]:
    return [
        Message("system", "Sort."),
        *(Message("user" if i % 2 == 0 else "assistant", t) for i, t in enumerate(texts)),
    ]


def test_what_all_user_messages_begin_and_end_with_is_form():
    bare = without_content(chat("Text: Iron rusts.\n\nSubject:", "chemistry", "Text: Irony is a device.\n\nSubject:"))
    assert [messages[-1].content for messages in bare] == [f"Text: {nothing}\n\nSubject:" for nothing in NO_CONTENT]
    assert all(messages[:-1] == tuple(chat("Text: Iron rusts.\n\nSubject:", "chemistry")) for messages in bare)


def test_equal_messages_and_empty_ones_do_no_harm():
    assert without_content(chat("same", "a", "same"))[0][-1].content == "N/A"
    assert without_content(chat("", "a", ""))[0][-1].content == "N/A"


def test_without_an_example_nothing_says_what_is_content():
    assert without_content(chat("Text: Iron rusts.")) == []
    assert without_content(chat("Text: a", "x", "Text: b", "y")) == []
