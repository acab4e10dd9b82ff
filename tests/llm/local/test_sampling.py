"""The parameters that are known, and the draw."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bqbuild.llm.local.sampling import Sampling, draw, penalise, read_sampling

LOGITS = torch.log(torch.tensor([[0.5, 0.25, 0.15, 0.1]]))


def frequencies(sampling: Sampling) -> list[float]:
    """How often each token is drawn over a grid of numbers."""
    numbers = [(index + 0.5) / 1000 for index in range(1000)]
    tokens = draw(LOGITS.repeat(1000, 1), [sampling] * 1000, numbers)
    return [tokens.count(token) / 1000 for token in range(4)]


def test_without_temperature_the_likeliest_token_is_taken():
    assert draw(LOGITS, [Sampling()], [0.99]) == [0]


def test_tokens_are_drawn_as_often_as_they_are_likely():
    assert frequencies(Sampling(temperature=1.0)) == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=0.002)


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    assert frequencies(Sampling(temperature=1.0, top_p=0.6)) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.002)


def test_top_k_keeps_that_many():
    assert frequencies(Sampling(temperature=1.0, top_k=1)) == [1, 0, 0, 0]


def test_min_p_drops_what_is_unlikely_beside_the_first():
    assert frequencies(Sampling(temperature=1.0, min_p=0.25)) == pytest.approx([5 / 9, 2.5 / 9, 1.5 / 9, 0], abs=0.002)


def test_a_low_temperature_sharpens():
    assert frequencies(Sampling(temperature=0.1))[0] > 0.99


@given(st.floats(0, 1, exclude_max=True), st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30))
def test_a_token_that_is_forbidden_is_never_drawn(number: float, values: list[float]):
    logits = torch.tensor([[float("-inf"), *values, float("-inf")]])
    for sampling in (Sampling(temperature=1.0), Sampling(temperature=2.0, top_p=0.5), Sampling()):
        assert 0 < draw(logits, [sampling], [number])[0] <= len(values)


def test_a_row_is_drawn_alike_whatever_its_neighbours_ask_for():
    alone = draw(LOGITS, [Sampling(temperature=1.0)], [0.8])
    others = [Sampling(), Sampling(temperature=1.0), Sampling(temperature=0.7, top_p=0.5)]
    assert draw(LOGITS.repeat(3, 1), others, [0.1, 0.8, 0.3])[1:2] == alone


def test_penalties_lower_the_tokens_that_were_made():
    logits = torch.tensor([2.0, -2.0, 1.0])
    penalise(logits, Sampling(repetition_penalty=2.0, frequency_penalty=0.5, presence_penalty=0.25), [0, 1, 1])
    assert logits.tolist() == [2.0 / 2 - 0.5 - 0.25, -2.0 * 2 - 1.0 - 0.25, 1.0]


def test_known_parameters_are_read_and_others_are_named():
    sampling, unknown = read_sampling(
        {"temperature": 1, "max_completion_tokens": 5, "stop": "\n", "seed": 7, "top_p": None, "logit_bias": {}}
    )
    assert sampling == Sampling(temperature=1.0, max_tokens=5, stop=("\n",))
    assert unknown == ("logit_bias",)


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": "hot"},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 1.5},
        {"top_k": 2.5},
        {"max_tokens": 0},
        {"max_tokens": True},
        {"stop": [1]},
        {"stop": ""},
    ],
)
def test_a_value_that_makes_no_sense_is_refused(params: dict):
    with pytest.raises(ValueError, match=next(iter(params))):
        read_sampling(params)
