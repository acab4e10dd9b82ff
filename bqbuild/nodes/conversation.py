"""What the LLM kinds share: from a row to requests, and from replies to values, with one re-ask.

Everything here is a generator of calls: no I/O, so that the same code plans, runs and replays.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bqbuild.config.project import Project
from bqbuild.config.prompts import PromptTemplate
from bqbuild.config.specs import JudgeRule, LlmSpec, OutputSpec
from bqbuild.core.records import CallKey, ChatReply, ChatRequest, Constraint, Message
from bqbuild.llm import provider_kind
from bqbuild.llm.keys import merge_params
from bqbuild.llm.parsing import Parsed, Unusable, constraint_for, parse_reply, reask
from bqbuild.nodes.base import Answer, Ask

T = TypeVar("T")
Steps = Generator[Sequence[Ask], Sequence[Answer], T]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one conversation came to: `parsed`, or the `problem` that the last reply had; and its calls."""

    calls: tuple[CallKey, ...]
    reply: ChatReply
    parsed: Parsed | None
    problem: Unusable | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt put to an LLM, ready to be held for any row."""

    llm: str
    prompt: PromptTemplate
    output: OutputSpec
    params: Mapping[str, Any]
    constraint: Constraint | None

    def messages(self, row: Mapping[str, Any]) -> tuple[Message, ...]:
        """The messages for a row. Raises RenderError where the row does not fit the prompt."""
        return self.prompt.render(row)

    def request(self, messages: tuple[Message, ...], sample: int) -> ChatRequest:
        """The request that these messages make."""
        return ChatRequest(messages=messages, params=self.params, sample=sample, constraint=self.constraint)

    def hold(self, messages: tuple[Message, ...], sample: int = 0) -> Steps[Outcome]:
        """Ask, read the reply, and where it cannot be read ask once more, quoting the problem."""
        first = yield [Ask(self.llm, self.request(messages, sample))]
        outcome = self._read(first[0], ())
        if outcome.problem is None or outcome.problem.reason != "unparsable":
            return outcome
        again = reask(messages, outcome.reply, outcome.problem)
        second = yield [Ask(self.llm, self.request(again, sample))]
        return self._read(second[0], outcome.calls)

    def _read(self, answer: Answer, earlier: tuple[CallKey, ...]) -> Outcome:
        calls = (*earlier, answer.key)
        try:
            return Outcome(calls, answer.reply, parse_reply(answer.reply, self.output), None)
        except Unusable as problem:
            return Outcome(calls, answer.reply, None, problem)


def open_conversation(project: Project, spec: LlmSpec | JudgeRule) -> Conversation:
    """The conversation that a declaration describes; parameters are connection < prompt < model."""
    template = project.prompts[spec.prompt]
    constrained = is_constrained(project, spec.llm, spec.output)
    return Conversation(
        llm=spec.llm,
        prompt=template,
        output=spec.output,
        params=merge_params(project.target.llms[spec.llm].params, template.front.params, spec.params),
        constraint=constraint_for(spec.output) if constrained else None,
    )


def is_constrained(project: Project, llm: str, output: OutputSpec) -> bool:
    """Whether the schema is declared to be sent: by the model, else the connection, else the provider's default."""
    connection = project.target.llms[llm]
    if output.constrain is not None:
        return output.constrain
    if connection.constrain is not None:
        return connection.constrain
    return provider_kind(connection.provider).constrains(connection)


def together(conversations: Sequence[Steps[T]]) -> Steps[list[T]]:
    """Hold several conversations at once: their asks go out in one wave."""
    results: dict[int, T] = {}
    waiting: dict[int, Sequence[Ask]] = {}
    for number, steps in enumerate(conversations):
        _advance(number, steps, None, waiting, results)
    while waiting:
        wave = dict(waiting)
        waiting.clear()
        answers = iter((yield [ask for asks in wave.values() for ask in asks]))
        for number, asks in wave.items():
            _advance(number, conversations[number], [next(answers) for _ in asks], waiting, results)
    return [results[number] for number in range(len(conversations))]


def _advance(
    number: int,
    steps: Steps[T],
    answers: Sequence[Answer] | None,
    waiting: dict[int, Sequence[Ask]],
    results: dict[int, T],
) -> None:
    try:
        waiting[number] = next(steps) if answers is None else steps.send(answers)
    except StopIteration as stop:
        results[number] = stop.value
