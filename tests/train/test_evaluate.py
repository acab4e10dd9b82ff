"""Questions through lm-eval: scores follow their definitions, offline and without a word on the terminal."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import pytest

from bqbuild.train.evaluate import Benchmark, Question, score
from bqbuild.train.language_model import open_model, open_tokenizer
from bqbuild.train.scoring import TreeLM
from tests.train.tiny import write_model

QUESTIONS = (
    Question("q1", "Question: What boils?\nAnswer:", ("Water", "A triangle", "Gold"), 0),
    Question("q2", "Question: What rusts?\nAnswer:", ("Gold", "Iron"), 1),
    Question("q3", "问：什么会生锈？\n答：", ("铁", "金", "水", "光"), 0),
)


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> TreeLM:
    folder = write_model(tmp_path_factory.mktemp("model"))
    return TreeLM(open_model(folder), open_tokenizer(folder))


def likelihood(lm: TreeLM, context: str, continuation: str) -> float:
    value, _ = lm._loglikelihood_tokens([((context, continuation), *lm._encode_pair(context, continuation))])[0]
    return value


def test_scores_follow_from_the_likelihoods_of_the_choices(lm: TreeLM) -> None:
    scored = score(lm, [Benchmark("tiny", QUESTIONS)])["tiny"]
    assert [result.id for result in scored] == ["q1", "q2", "q3"]
    for result, question in zip(scored, QUESTIONS, strict=True):
        whole = [likelihood(lm, question.context, f" {choice}") for choice in question.choices]
        per_byte = [value / len(choice.encode()) for value, choice in zip(whole, question.choices, strict=True)]
        assert result.choice == per_byte.index(max(per_byte))
        assert result.correct == float(result.choice == question.gold)
        assert result.gold_logprob == pytest.approx(per_byte[question.gold], abs=1e-4)
        share = math.exp(whole[question.gold]) / sum(map(math.exp, whole))
        assert result.gold_probability == pytest.approx(share, abs=1e-4)
        assert result.n_choices == len(question.choices)


def test_examples_stand_with_their_answers_before_every_question(lm: TreeLM) -> None:
    (result,) = score(lm, [Benchmark("shot", QUESTIONS[1:2], examples=QUESTIONS[:1])])["shot"]
    context = "Question: What boils?\nAnswer: Water\n\nQuestion: What rusts?\nAnswer:"
    assert result.gold_logprob == pytest.approx(likelihood(lm, context, " Iron") / 4, abs=1e-4)


def test_benchmarks_are_scored_together_and_an_empty_one_stays_empty(lm: TreeLM) -> None:
    scored = score(lm, [Benchmark("one", QUESTIONS[:1]), Benchmark("none", ()), Benchmark("two", QUESTIONS[1:])])
    assert {name: len(results) for name, results in scored.items()} == {"one": 1, "none": 0, "two": 2}
    assert score(lm, [Benchmark("none", ())]) == {"none": []}


def test_evaluation_opens_no_connection_and_says_nothing(
    lm: TreeLM, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    score(lm, [Benchmark("quiet", QUESTIONS, examples=QUESTIONS[:1])])
    assert capfd.readouterr() == ("", "")


def test_scores_do_not_depend_on_the_other_questions(lm: TreeLM, tmp_path: Path) -> None:
    together = score(lm, [Benchmark("all", QUESTIONS)])["all"]
    alone = [score(lm, [Benchmark("one", (question,))])["one"][0] for question in QUESTIONS]
    for one, other in zip(together, alone, strict=True):
        assert one.gold_logprob == pytest.approx(other.gold_logprob, abs=2e-4)
