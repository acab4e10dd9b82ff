"""`evaluate`: puts benchmark questions to LLMs, base or trained. One row a model, benchmark and question.

`choice` is the choice with the highest log-likelihood per byte; `gold_logprob` is the gold choice's, in nats per UTF-8
byte; see train/evaluate.py. The side table `summary` holds means, intervals and differences from the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from bqbuild.config.prompts import RenderError
from bqbuild.config.specs import EvaluateSpec
from bqbuild.core.errors import BuildError
from bqbuild.core.events import Counts, NodeProgress, Warned
from bqbuild.core.ids import row_id
from bqbuild.core.records import ID, LINEAGE_COLUMNS, PARENT, ROOTS, Message, Node, Table
from bqbuild.nodes.base import BuildContext, Built
from bqbuild.nodes.llm_folder import llm_folder
from bqbuild.nodes.questions import Item, QuestionSet, read_questions
from bqbuild.nodes.score_summary import summarise, summary_schema
from bqbuild.store.types import column_type
from bqbuild.train.evaluate import Benchmark, Question, Scored, score
from bqbuild.train.language_model import open_model, open_tokenizer
from bqbuild.train.scoring import TreeLM

DEFAULT_CONTEXT = "Question: {question}\nAnswer:"
"""What stands before a choice where the node names no prompt."""


class EvaluateKind:
    """The kind as the registry knows it."""

    def build(self, node: Node, inputs: Mapping[str, Table], ctx: BuildContext) -> Built:
        """Score every LLM on every benchmark. Raises BqError."""
        spec: EvaluateSpec = node.spec
        _check_names(node)
        by = _by_types(node, inputs)
        folders = {
            label: llm_folder(name, inputs, ctx, node.places.get(f"models.{label}", node.where))
            for label, name in spec.models.items()
        }
        sets = [
            read_questions(node, number, inputs[benchmark.model], ctx) for number, benchmark in enumerate(spec.from_)
        ]
        progress = Progress(node, ctx, sum(len(asked.items) for asked in sets))
        rows: list[dict[str, Any]] = []
        for label, folder in folders.items():
            scored = _score_llm(node, label, folder, sets, progress)
            rows += [row for asked in sets for row in _rows(label, asked, scored[asked.name], by)]
        table = _write(ctx, _schema(by), rows)
        return Built(table, {"summary": _write(ctx, summary_schema(by), summarise(rows, spec.by, spec.baseline))})


@dataclass(frozen=True, slots=True)
class Progress:
    """Tells how many questions are done: every LLM is asked `questions` of them, one LLM after the other."""

    node: Node
    ctx: BuildContext
    questions: int

    def of(self, label: str) -> Callable[[int, int], None]:
        """What hears how many of how many contexts the LLM of that label is through with."""
        labels = list(self.node.spec.models)

        def report(done: int, total: int) -> None:
            here = self.questions * labels.index(label) + self.questions * done // total
            whole = self.questions * len(labels)
            counts = Counts(rows=here)
            self.ctx.emit(NodeProgress(self.node.name, counts, done=here, total=whole, unit="questions", note=label))

        return report


def _score_llm(
    node: Node, label: str, folder: Path, sets: Sequence[QuestionSet], progress: Progress
) -> dict[str, list[Scored]]:
    """The scores of one LLM, which is in memory only as long as this takes."""
    tokenizer = open_tokenizer(folder)
    dtype = torch.bfloat16 if node.spec.dtype == "bf16" else torch.float32
    lm = TreeLM(open_model(folder, dtype), tokenizer, report=progress.of(label))
    ctx = progress.ctx
    scored = score(lm, [_benchmark(node, asked, ctx, tokenizer) for asked in sets])
    if lm.cut_contexts:
        message = f"`{label}`: {lm.cut_contexts} sequences were longer than the LLM takes; their beginning was cut"
        ctx.emit(Warned(message, node.name))
    return scored


def _check_names(node: Node) -> None:
    """Benchmarks have names of their own; the baseline is one of the LLMs."""
    spec: EvaluateSpec = node.spec
    names = [benchmark.name or benchmark.model for benchmark in spec.from_]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        hint = "give one of them another `name`"
        raise BuildError(f"two benchmarks of `{node.name}` are called `{twice[0]}`", where=node.where, hint=hint)
    if spec.baseline is not None and spec.baseline not in spec.models:
        where = node.places.get("baseline", node.where)
        raise BuildError(f"`{spec.baseline}` is none of the models {', '.join(spec.models)}", where=where)


def _by_types(node: Node, inputs: Mapping[str, Table]) -> dict[str, pa.DataType]:
    """The types of the columns to group by: the same in all benchmarks that have them."""
    types: dict[str, pa.DataType] = {}
    for benchmark in node.spec.from_:
        for column in inputs[benchmark.model].columns:
            if column.name in node.spec.by and column.name not in LINEAGE_COLUMNS:
                own = column_type(column.type)
                if types.setdefault(column.name, own) != own:
                    message = f"`{column.name}` is {column.type} in `{benchmark.model}` and of another type before"
                    raise BuildError(message, where=node.places.get("by", node.where), hint="cast it in a SQL model")
    missing = [name for name in node.spec.by if name not in types]
    if missing:
        message = f"no benchmark of `{node.name}` has the column `{missing[0]}`"
        raise BuildError(message, where=node.places.get("by", node.where))
    return {name: types[name] for name in node.spec.by}


def _benchmark(node: Node, asked: QuestionSet, ctx: BuildContext, tokenizer: PreTrainedTokenizerBase) -> Benchmark:
    """The questions as one LLM sees them. A prompt of one user message is the context as it stands; one with roles
    is a chat, in the LLM's own template."""
    rendered = [_messages(node, item, asked, ctx) for item in (*asked.examples, *asked.items)]
    chat = any(len(messages) > 1 for messages in rendered)
    if chat and asked.examples:
        message = f"`{node.name}` has few_shot and a prompt with roles"
        raise BuildError(message, where=node.where, hint="write the examples into the prompt, with few_shot: 0")
    contexts = [_chat_context(messages, tokenizer) if chat else messages[0].content for messages in rendered]
    questions = [
        Question(item.id, context, item.choices, item.gold)
        for item, context in zip((*asked.examples, *asked.items), contexts, strict=True)
    ]
    shots = len(asked.examples)
    return Benchmark(asked.name, tuple(questions[shots:]), tuple(questions[:shots]), delimiter="" if chat else " ")


def _messages(node: Node, item: Item, asked: QuestionSet, ctx: BuildContext) -> tuple[Message, ...]:
    if not node.spec.prompt:
        return (Message("user", DEFAULT_CONTEXT.format(question=item.row[asked.spec.question].strip())),)
    row = {name: value for name, value in item.row.items() if name not in LINEAGE_COLUMNS}
    try:
        return ctx.project.prompts[node.spec.prompt].render(row)
    except RenderError as error:
        raise BuildError(f"question {item.id}: {error.message}", where=error.where, hint=error.hint) from error


def _chat_context(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    if tokenizer.chat_template is None:
        hint = "use a prompt without roles, which needs none"
        raise BuildError("the prompt has roles, and an LLM has no chat template", hint=hint)
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise BuildError(f"the chat template refuses the prompt: {error}") from error


def _rows(
    label: str, asked: QuestionSet, scored: Sequence[Scored], by: Mapping[str, pa.DataType]
) -> list[dict[str, Any]]:
    return [
        {
            "model": label,
            "benchmark": asked.name,
            "question_id": item.id,
            **{name: item.row.get(name) for name in by},
            "choice": result.choice,
            "gold": result.gold,
            "n_choices": result.n_choices,
            "correct": result.correct,
            "gold_logprob": result.gold_logprob,
            "gold_probability": result.gold_probability,
            ID: row_id("evaluate", label, asked.name, item.id),
            PARENT: item.id,
            ROOTS: item.row[ROOTS],
        }
        for item, result in zip(asked.items, scored, strict=True)
    ]


def _schema(by: Mapping[str, pa.DataType]) -> pa.Schema:
    return pa.schema(
        [
            ("model", pa.string()),
            ("benchmark", pa.string()),
            ("question_id", pa.string()),
            *by.items(),
            ("choice", pa.int64()),
            ("gold", pa.int64()),
            ("n_choices", pa.int64()),
            ("correct", pa.float64()),
            ("gold_logprob", pa.float64()),
            ("gold_probability", pa.float64()),
            (ID, pa.string()),
            (PARENT, pa.string()),
            (ROOTS, pa.list_(pa.string())),
        ]
    )


def _write(ctx: BuildContext, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> Table:
    writer = ctx.store.tables.writer(schema)
    writer.write(pa.Table.from_pylist(list(rows), schema=schema))
    return writer.commit()
