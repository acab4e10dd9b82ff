"""Puts multiple-choice questions to an LLM through lm-eval: which choice is most likely, and how likely is the gold.

lm-eval builds the requests, drives the LLM and scores; tasks are made of rows in memory, so nothing is downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate

from bqbuild.train.scoring import TreeLM

DECIMALS = 4
"""Scores are rounded: below this float32 differs with how questions are packed, and a score is content."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question as the LLM sees it: a context, and the choices as its continuations; `gold` is an index of them."""

    id: str
    context: str
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Questions under one name. `examples` stand, with their answers, before every question; `delimiter` stands
    between a context and a choice."""

    name: str
    questions: tuple[Question, ...]
    examples: tuple[Question, ...] = ()
    delimiter: str = " "


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of a question.

    `choice` has the highest log-likelihood per UTF-8 byte, and `correct` is 1.0 where it is the gold one (lm-eval's
    `acc_bytes`). `gold_logprob` is the gold choice's log-likelihood per byte, in nats; `gold_probability` its share
    of the choices' whole likelihoods.
    """

    id: str
    choice: int
    gold: int
    n_choices: int
    correct: float
    gold_logprob: float
    gold_probability: float


def score(lm: TreeLM, benchmarks: Sequence[Benchmark]) -> dict[str, list[Scored]]:
    """The scores of every benchmark's questions, by its name and in their order. Names must differ."""
    asked = [benchmark for benchmark in benchmarks if benchmark.questions]
    if not asked:
        return {benchmark.name: [] for benchmark in benchmarks}
    tasks = {benchmark.name: BenchmarkTask(benchmark) for benchmark in asked}
    samples = evaluate(lm=lm, task_dict=tasks, bootstrap_iters=0, log_samples=True)["samples"]
    scored: dict[str, list[Scored]] = {benchmark.name: [] for benchmark in benchmarks}
    for benchmark in asked:
        ordered = sorted(samples[benchmark.name], key=lambda sample: int(sample["doc_id"]))
        scored[benchmark.name] = [
            _scored(question, sample) for question, sample in zip(benchmark.questions, ordered, strict=True)
        ]
    return scored


class BenchmarkTask(ConfigurableTask):  # type: ignore[misc]  # lm-eval has no types
    """A benchmark as a task of lm-eval."""

    def __init__(self, benchmark: Benchmark) -> None:
        self._benchmark = benchmark
        mean = {"aggregation": "mean", "higher_is_better": True}
        super().__init__(
            config={
                "task": benchmark.name,
                "test_split": "test",
                "output_type": "multiple_choice",
                "doc_to_text": "context",
                "doc_to_choice": "choices",
                "doc_to_target": "gold",
                "target_delimiter": benchmark.delimiter,
                "num_fewshot": len(benchmark.examples),
                "fewshot_config": {"sampler": "first_n", "samples": [_doc(example) for example in benchmark.examples]},
                "metric_list": [{"metric": "acc", **mean}, {"metric": "acc_bytes", **mean}],
            }
        )

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """The rows are here: nothing is downloaded."""
        self.dataset = {"test": Dataset.from_list([_doc(question) for question in self._benchmark.questions])}

    def build_all_requests(self, **options: Any) -> None:
        """As lm-eval's own, without its progress bar, which would draw over ours."""
        self._instances = []
        for doc_id, doc in self.doc_iterator():
            context = self.fewshot_context(doc, num_fewshot=self.config.num_fewshot)
            meta = (self.config.task, doc_id, self.config.repeats)
            self._instances += self.construct_requests(doc=doc, ctx=context, metadata=meta)


def _doc(question: Question) -> dict[str, Any]:
    return {"context": question.context, "choices": list(question.choices), "gold": question.gold}


def _scored(question: Question, sample: Mapping[str, Any]) -> Scored:
    likelihoods = [float(likelihood) for likelihood, _ in sample["filtered_resps"]]
    per_byte = [value / len(text.encode()) for value, text in zip(likelihoods, question.choices, strict=True)]
    highest = max(likelihoods)
    weights = [math.exp(value - highest) for value in likelihoods]
    return Scored(
        id=question.id,
        choice=max(range(len(per_byte)), key=lambda number: per_byte[number]),
        gold=question.gold,
        n_choices=len(question.choices),
        correct=float(sample["acc_bytes"]),
        gold_logprob=round(per_byte[question.gold], DECIMALS),
        gold_probability=round(weights[question.gold] / sum(weights), DECIMALS),
    )
