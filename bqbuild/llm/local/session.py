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
from bqbuild.llm.local.constrain import Constrainer, Guide
from bqbuild.llm.local.engine import Engine, Job
from bqbuild.llm.local.labels import Labels
from bqbuild.llm.local.model import LocalModel, load_model
from bqbuild.llm.local.prompts import PromptEncoder
from bqbuild.llm.local.sampling import read_sampling
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
        self._labels = Labels(self._encoder, model.ends[0])
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
            labels = self._labels.tree(request)
            guide = self._guide(request)
            reply = len(labels.tokens) if labels else min(sampling.max_tokens, self._model.context // 2)
            room = self._model.context - reply
            prompt, cut = self._encoder.encode(request.messages, room)
            fitting = replace(sampling, max_tokens=min(sampling.max_tokens, max(1, self._model.context - len(prompt))))
            job = Job(prompt, fitting, int(call_key({}, request), 16), guide, labels)
            before = self._labels.start(job, request, room) if labels else []
        except ValueError as error:
            raise ProviderError(f"the embedded model can't take this request: {error}", kind="request") from error
        self._warn_unknown(unknown, warn)
        self._warn_shortened(cut, warn)
        for each in (*before, job):
            self._engine.add(each)
        return job

    def step(self) -> list[tuple[Job, ChatReply]]:
        """One forward pass; the jobs that have ended and their replies."""
        replies = []
        for job, outcome in self._engine.step():
            if outcome.scores is None:
                replies.append((job, self._reply(job, outcome.text, outcome.finish_reason, outcome.tokens)))
                continue
            for weighed, text in self._labels.weigh(job, outcome.scores):
                replies.append((weighed, self._reply(weighed, text, "stop", len(self._encoder.label(text)))))
        return replies

    def _reply(self, job: Job, text: str, reason: str, tokens: int) -> ChatReply:
        return ChatReply(
            text=text,
            finish_reason=reason,
            input_tokens=len(job.prompt),
            output_tokens=tokens,
            model=self._name,
            fingerprint=self._fingerprint,
        )

    def _guide(self, request: ChatRequest) -> Guide | None:
        schema: Mapping[str, object] | None = request.constraint.json_schema if request.constraint else None
        return self._constrainer.start(schema) if schema is not None else None

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
