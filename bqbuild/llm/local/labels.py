"""The choices under way: each is weighed against the same prompt without content, which runs once for many rows."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from random import Random

import torch
from torch import Tensor

from bqbuild.core.records import ChatRequest, Message
from bqbuild.llm.local.choices import LabelTree, label_tree, pick_label, without_content
from bqbuild.llm.local.engine import Job
from bqbuild.llm.local.prompts import PromptEncoder
from bqbuild.llm.local.sampling import Sampling

REMEMBERED = 256
"""How many baselines are kept for later rows: one a form of prompt and set of labels."""


@dataclass(slots=True, eq=False)
class _Baseline:
    """What the labels score without content: `missing` scores are still to come, and `parked` rows wait for them."""

    missing: int
    scores: list[Tensor] = field(default_factory=list)
    parked: list[tuple[Job, Tensor]] = field(default_factory=list)


class Labels:
    """Label trees, the baselines of forms of prompts, and the choices that are being made."""

    def __init__(self, encoder: PromptEncoder, end: int) -> None:
        self._encoder = encoder
        self._end = end
        self._trees: dict[tuple[str, ...], LabelTree] = {}
        self._baselines: OrderedDict[tuple[tuple[Message, ...], ...], _Baseline] = OrderedDict()
        self._running: dict[Job, _Baseline] = {}
        self._choosing: dict[Job, tuple[_Baseline, tuple[str, ...]]] = {}

    def tree(self, request: ChatRequest) -> LabelTree | None:
        """The tree of the request's labels, made once for a set of labels; None where it has none."""
        choices = _choices(request)
        if choices and choices not in self._trees:
            self._trees[choices] = label_tree([self._encoder.label(text) for text in choices], self._end)
        return self._trees.get(choices)

    def start(self, job: Job, request: ChatRequest, room: int) -> list[Job]:
        """Note a choice that is to be made; the jobs that have to run for its baseline, none where that is known.

        Raises ValueError where a prompt without content is longer than `room` tokens.
        """
        bare = without_content(request.messages)
        form = (*bare, tuple(Message("label", text) for text in _choices(request)))
        baseline = self._baselines.get(form)
        jobs: list[Job] = []
        if baseline is None:
            prompts = [self._encoder.encode(messages, room)[0] for messages in bare]
            jobs = [Job(prompt, Sampling(), 0, None, job.labels) for prompt in prompts]
            baseline = self._baselines[form] = _Baseline(len(jobs))
            self._running.update(dict.fromkeys(jobs, baseline))
        self._baselines.move_to_end(form)
        if len(self._baselines) > REMEMBERED:
            self._baselines.popitem(last=False)  # choices that still need it hold it themselves
        self._choosing[job] = (baseline, _choices(request))
        return jobs

    def weigh(self, job: Job, scores: Tensor) -> list[tuple[Job, str]]:
        """Take the scores of a choice, or of a part of a baseline; the choices that can now be made."""
        if job in self._choosing:
            baseline, _ = self._choosing[job]
            baseline.parked.append((job, scores))
        else:
            baseline = self._running.pop(job)
            baseline.scores.append(scores)
            baseline.missing -= 1
        if baseline.missing:
            return []
        ready, baseline.parked = baseline.parked, []
        return [(parked, self._choose(parked, mine)) for parked, mine in ready]

    def _choose(self, job: Job, scores: Tensor) -> str:
        baseline, choices = self._choosing.pop(job)
        if baseline.scores:
            scores = scores - torch.stack(baseline.scores).mean(0)
        return choices[pick_label(scores, job.sampling.temperature, Random(job.seed).random())]


def _choices(request: ChatRequest) -> tuple[str, ...]:
    return request.constraint.choices if request.constraint else ()
