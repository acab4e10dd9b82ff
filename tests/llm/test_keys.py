"""Call keys: what changes them, what does not, and that they never change by accident."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bqbuild.core.errors import ProjectError
from bqbuild.core.records import ChatRequest, Constraint, Message
from bqbuild.llm.keys import call_key, merge_params

IDENTITY = {"model": "m"}
REQUEST = ChatRequest(
    (Message("system", "You write."), Message("user", "Schreib: Äpfel")), {"temperature": 0.7, "max_tokens": 200}
)


def test_keys_are_pinned_because_a_change_would_buy_every_call_again() -> None:
    assert call_key(IDENTITY, REQUEST) == "791c774ccf12f874a54f2143290fd4d4"
    assert (
        call_key({"model": "m", "revision": "r1"}, dataclasses.replace(REQUEST, sample=2))
        == "28629a38b4af906b93cdaee0872cf2c9"
    )
    constrained = dataclasses.replace(REQUEST, constraint=Constraint(choices=("a", "b")))
    assert call_key(IDENTITY, constrained) == "6ed9d1daccf4269fce3c05257815052b"
    schema = dataclasses.replace(REQUEST, constraint=Constraint(json_schema={"type": "object"}))
    assert call_key(IDENTITY, schema) == "a7efac1b37899770aa756b5081afd010"


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (Message("user", "You write."), Message("user", "Schreib: Äpfel"))},
        {"messages": (Message("system", "You write.Schreib: Äpfel"),)},
        {"params": {"temperature": 0.8, "max_tokens": 200}},
        {"params": {"temperature": 0.7, "max_tokens": 200, "top_k": 5}},
        {"params": {"temperature": 0.7, "max_tokens": "200"}},
        {"params": {"temperature": 0.7, "max_tokens": 200, "stop": ["a-b"]}},
        {"sample": 1},
        {"constraint": Constraint(choices=("a",))},
    ],
    ids=["role", "joined messages", "parameter", "new parameter", "type", "stop", "sample", "constraint"],
)
def test_whatever_can_change_the_reply_changes_the_key(change: dict[str, Any]) -> None:
    assert call_key(IDENTITY, dataclasses.replace(REQUEST, **change)) != call_key(IDENTITY, REQUEST)


def test_stop_words_joined_differently_are_different() -> None:
    one = ChatRequest(REQUEST.messages, {"stop": ["a-b"]})
    two = ChatRequest(REQUEST.messages, {"stop": ["a", "b"]})
    assert call_key(IDENTITY, one) != call_key(IDENTITY, two)


def test_true_is_not_one() -> None:
    assert call_key(IDENTITY, ChatRequest((), {"x": True})) != call_key(IDENTITY, ChatRequest((), {"x": 1}))


def test_the_order_of_parameters_and_the_spelling_of_whole_numbers_do_not_count() -> None:
    other = dataclasses.replace(REQUEST, params={"max_tokens": 200.0, "temperature": 0.7})
    assert call_key(IDENTITY, other) == call_key(IDENTITY, REQUEST)


def test_a_lone_surrogate_has_a_key() -> None:
    assert len(call_key(IDENTITY, ChatRequest((Message("user", "\ud800"),)))) == 32


def test_the_model_wins_over_the_prompt_and_the_prompt_over_the_connection() -> None:
    merged = merge_params({"a": 1, "b": 1, "c": 1}, {"b": 2, "c": 2}, {"c": 3})
    assert merged == {"a": 1, "b": 2, "c": 3}


def test_a_null_takes_a_parameter_out() -> None:
    assert merge_params({"temperature": 0.5, "top_p": 0.9}, {"temperature": None}, {}) == {"top_p": 0.9}


@pytest.mark.parametrize("name", ["messages", "model", "stream", "n"])
def test_parameters_that_belong_to_others_are_refused_with_the_right_place(name: str) -> None:
    with pytest.raises(ProjectError, match=f"cannot set '{name}'") as caught:
        merge_params({}, {}, {name: 1})
    assert caught.value.hint
