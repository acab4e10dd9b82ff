"""Scores over trees are those of one sequence at a time, whatever else is asked with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bqbuild.train.language_model import make_model, open_model, open_tokenizer
from bqbuild.train.scoring import TreeLM, attends_along_trees
from tests.train.tiny import write_model

PAIRS = [
    ("Water boils at", " one hundred degrees."),
    ("Water boils at", " three sides."),
    ("Water boils at", " one"),
    ("The heart pumps blood", " through the body."),
    ("", "Iron rusts in wet air."),
    ("A triangle has ", "three sides"),
    ("Plants make sugar from", " light" * 40),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    folder = write_model(tmp_path_factory.mktemp("model"))
    return open_model(folder), open_tokenizer(folder)


def requests_of(lm: TreeLM, pairs: list[tuple[str, str]]) -> list[tuple[tuple[str, str], list[int], list[int]]]:
    made = []
    for context, continuation in pairs:
        if context:
            made.append(((context, continuation), *lm._encode_pair(context, continuation)))
        else:
            made.append(((context, continuation), [lm.prefix_token_id], lm.tok_encode(continuation)))
    return made


def plain_score(model: PreTrainedModel, context: list[int], end: list[int]) -> tuple[float, bool]:
    """The definition: the whole sequence through the model, and nothing else."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([context + end])).logits[0, len(context) - 1 : -1].log_softmax(-1)
    likelihood = sum(logits[place, token].item() for place, token in enumerate(end))
    return likelihood, logits.argmax(-1).tolist() == end


def test_trees_score_as_plain_sequences_do(tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = tiny
    lm = TreeLM(model, tokenizer)
    asked = requests_of(lm, PAIRS)
    scored = lm._loglikelihood_tokens(asked)
    for (likelihood, greedy), (_, context, end) in zip(scored, asked, strict=True):
        expected = plain_score(model, context, end)
        assert likelihood == pytest.approx(expected[0], abs=1e-3)
        assert greedy == expected[1]


def test_a_score_does_not_depend_on_what_else_is_asked(tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    lm = TreeLM(*tiny)
    asked = requests_of(lm, PAIRS)
    together = lm._loglikelihood_tokens(asked)
    alone = [lm._loglikelihood_tokens([request])[0] for request in asked]
    assert [score for score, _ in together] == pytest.approx([score for score, _ in alone], abs=1e-4)


def test_a_model_that_takes_no_mask_is_asked_sequence_by_sequence(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> None:
    _, tokenizer = tiny
    bloom = make_model({"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4}, tokenizer, seed=0)
    assert not attends_along_trees(bloom)
    lm = TreeLM(bloom, tokenizer)
    asked = requests_of(lm, PAIRS)
    for (likelihood, _), (_, context, end) in zip(lm._loglikelihood_tokens(asked), asked, strict=True):
        assert likelihood == pytest.approx(plain_score(bloom, context, end)[0], abs=1e-3)


def test_what_is_too_long_loses_its_beginning_and_is_counted(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> None:
    model, tokenizer = tiny
    lm = TreeLM(model, tokenizer)
    ((_, context, end),) = requests_of(lm, [("Iron rusts. " * 200 + "Gold", " does not.")])
    ((likelihood, _),) = lm._loglikelihood_tokens([(("", ""), context, end)])
    assert lm.cut_contexts == 1
    cut = (context + end)[-257:]
    assert likelihood == pytest.approx(plain_score(model, cut[: -len(end)], end)[0], abs=1e-3)


def test_bf16_scores_are_near_the_float32_ones(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    tokenizer = open_tokenizer(folder)
    exact, rough = (TreeLM(open_model(folder, dtype), tokenizer) for dtype in (torch.float32, torch.bfloat16))
    asked = requests_of(exact, PAIRS[:4])
    expected = [score for score, _ in exact._loglikelihood_tokens(asked)]
    assert [score for score, _ in rough._loglikelihood_tokens(asked)] == pytest.approx(expected, rel=0.05)


def test_progress_ends_with_all_contexts(tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    heard: list[tuple[int, int]] = []
    lm = TreeLM(*tiny, report=lambda done, total: heard.append((done, total)))
    lm._loglikelihood_tokens(requests_of(lm, PAIRS))
    assert heard[-1] == (5, 5)
