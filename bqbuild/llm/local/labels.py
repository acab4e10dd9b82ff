"""The choices under way: each is weighed against the same prompt without content, which runs once for many rows."""

from __future__ import annotations

from collections import OrderedDict
from random import Random

import torch
from torch import Tensor

from bqbuild.core.records import ChatRequest, Message
from bqbuild.llm.local.choices import LabelTree, label_tree, pick_label, without_content
from bqbuild.llm.local.engine import Job
from bqbuild.llm.local.prompts import PromptEncoder
from bqbuild.llm.local.sampling import Sampling

REMEMBERED = 256
"""How many baselines are kept: one a form of prompt and set of labels."""

Form = tuple[tuple[tuple[Message, ...], ...], tuple[str, ...]]


class Labels:
    """Label trees, the baselines of forms of prompts, and the choices that wait for theirs."""

    def __init__(self, encoder: PromptEncoder, end: int) -> None:
        self._encoder = encoder
        self._end = end
        self._trees: dict[tuple[str, ...], LabelTree] = {}
        self._baselines: OrderedDict[Form, list[Tensor]] = OrderedDict()
        self._running: dict[Job, Form] = {}
        self._parked: dict[Form, list[tuple[Job, ChatRequest, Tensor]]] = {}

    def tree(self, request: ChatRequest) -> LabelTree | None:
        """The tree of the request's labels, made once for a set of labels; None where it has none."""
        choices = request.constraint.choices if request.constraint else ()
        if choices and choices not in self._trees:
            self._trees[choices] = label_tree([self._encoder.label(text) for text in choices], self._end)
        return self._trees.get(choices)

    def baselines(self, request: ChatRequest, room: int) -> list[Job]:
        """The jobs that weigh the request's labels without content; none where that was done or can't be."""
        form, tree = _form(request), self.tree(request)
        if form in self._baselines or not form[0]:
            return []
        self._baselines[form] = []
        while len(self._baselines) > REMEMBERED and next(iter(self._baselines)) not in self._parked:
            self._baselines.popitem(last=False)
        jobs = [Job(self._encoder.encode(messages, room)[0], Sampling(), 0, None, tree) for messages in form[0]]
        self._running.update(dict.fromkeys(jobs, form))
        return jobs

    def weigh(self, job: Job, request: ChatRequest | None, scores: Tensor) -> list[tuple[Job, str]]:
        """Take the scores of a baseline (`request` is None) or of a request; the choices that are now made."""
        if request is None:
            form = self._running.pop(job)
            self._baselines[form].append(scores)
            ready = self._parked.pop(form, []) if len(self._baselines[form]) == len(form[0]) else []
            return [(other, self._choose(*parked)) for parked in ready for other in (parked[0],)]
        form = _form(request)
        if len(self._baselines.get(form, ())) < len(form[0]):
            self._parked.setdefault(form, []).append((job, request, scores))
            return []
        return [(job, self._choose(job, request, scores))]

    def _choose(self, job: Job, request: ChatRequest, scores: Tensor) -> str:
        form = _form(request)
        if form[0]:
            scores = scores - torch.stack(self._baselines[form]).mean(0)
        return form[1][pick_label(scores, job.sampling.temperature, Random(job.seed).random())]


def _form(request: ChatRequest) -> Form:
    """What a request shares with others of its kind: its prompt without content, and its labels."""
    choices = request.constraint.choices if request.constraint else ()
    return tuple(without_content(request.messages)), choices
