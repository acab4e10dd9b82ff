"""Requests in, replies out: between the provider's records and the engine's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.errors import ProviderError
from bqbuild.core.records import ChatReply, ChatRequest
from bqbuild.llm.base import Warn
from bqbuild.llm.keys import call_key
from bqbuild.llm.local.choices import LabelTree, label_tree
from bqbuild.llm.local.constrain import Constrainer, Guide
from bqbuild.llm.local.engine import Engine, Job
from bqbuild.llm.local.model import LocalModel, load_model
from bqbuild.llm.local.prompts import PromptEncoder
from bqbuild.llm.local.sampling import Sampling, read_sampling
from bqbuild.llm.weights import EMBEDDED_NAMES, resolve_weights, weights_identity


def open_session(connection: ConnectionSpec, rows: int) -> Session:
    """Load the connection's model, for batches of `rows`. Raises ProjectError, OSError or ValueError."""
    if connection.threads is not None:
        torch.set_num_threads(connection.threads)
    model = load_model(resolve_weights(connection.model, revision=connection.revision), connection.context)
    identity = weights_identity(connection.model, revision=connection.revision)
    name = EMBEDDED_NAMES[-1] if connection.model in EMBEDDED_NAMES else connection.model
    return Session(model, rows=rows, name=name, fingerprint=identity["weights"])


class Session:
    """One loaded model and the requests that it is working on."""

    def __init__(self, model: LocalModel, *, rows: int, name: str, fingerprint: str) -> None:
        self._model = model
        self._name = name
        self._fingerprint = fingerprint
        self._encoder = PromptEncoder(model.tokenizer)
        tokenizer_json = model.tokenizer.backend_tokenizer.to_str()
        self._constrainer = Constrainer(tokenizer_json, model.vocabulary, model.ends)
        self._engine = Engine(model, self._encoder, self._constrainer, rows)
        self._trees: dict[tuple[str, ...], LabelTree] = {}
        self._asked: dict[Job, ChatRequest] = {}
        self._warned: set[str] = set()
        self._shortened = 0

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""
        return self._engine.busy

    def start(self, request: ChatRequest, warn: Warn) -> Job:
        """Queue a request; the job is its ticket. Raises ProviderError for one that can't be run."""
        try:
            sampling, unknown = read_sampling(request.params)
            self._warn_unknown(unknown, warn)
            labels = self._labels(request)
            guide = self._guide(request)
            reply = 0 if labels else min(sampling.max_tokens, self._model.context // 2)
            prompt, cut = self._encoder.encode(request.messages, self._model.context - reply)
        except ValueError as error:
            raise ProviderError(f"the embedded model can't take this request: {error}", kind="request") from error
        self._warn_shortened(cut, warn)
        job = Job(prompt, self._fitting(sampling, len(prompt)), _seed(request), guide, labels)
        self._asked[job] = request
        self._engine.add(job)
        return job

    def step(self) -> list[tuple[Job, ChatReply]]:
        """One forward pass; the jobs that have ended and their replies."""
        replies = []
        for job, outcome in self._engine.step():
            request = self._asked.pop(job)
            text, tokens = outcome.text, outcome.tokens
            if outcome.label is not None and request.constraint is not None:
                text = request.constraint.choices[outcome.label]
                tokens = len(self._encoder.label(text))
            reply = ChatReply(
                text=text,
                finish_reason=outcome.finish_reason,
                input_tokens=len(job.prompt),
                output_tokens=tokens,
                model=self._name,
                fingerprint=self._fingerprint,
            )
            replies.append((job, reply))
        return replies

    def _labels(self, request: ChatRequest) -> LabelTree | None:
        """The tree of the request's labels, made once for a set of labels."""
        choices = request.constraint.choices if request.constraint else ()
        if choices and choices not in self._trees:
            self._trees[choices] = label_tree([self._encoder.label(text) for text in choices], self._model.ends[0])
        return self._trees.get(choices)

    def _guide(self, request: ChatRequest) -> Guide | None:
        schema: Mapping[str, object] | None = request.constraint.json_schema if request.constraint else None
        return self._constrainer.start(schema) if schema is not None else None

    def _fitting(self, sampling: Sampling, prompt: int) -> Sampling:
        """A reply never grows past the context."""
        fits = max(1, self._model.context - prompt)
        if sampling.max_tokens <= fits:
            return sampling
        return replace(sampling, max_tokens=fits)

    def _warn_unknown(self, names: tuple[str, ...], warn: Warn) -> None:
        for name in names:
            if name not in self._warned:
                self._warned.add(name)
                warn(f"the embedded model does not know the parameter `{name}`, and ignores it")

    def _warn_shortened(self, cut: int, warn: Warn) -> None:
        """Say it the first time, and at every power of ten: never in silence, and not for every row."""
        if cut == 0:
            return
        self._shortened += 1
        if str(self._shortened).strip("0") == "1":
            warn(
                f"{self._shortened} prompt(s) so far were longer than the context of {self._model.context} tokens: "
                f"the middle of the last user message was left out (now {cut} tokens)"
            )


def _seed(request: ChatRequest) -> int:
    """A number that is the same for the same request on any machine: what its call key covers, but the model."""
    return int(call_key({}, request), 16)
