"""`train`: mid-trains a causal language model on a table of texts or chats. Its table is the curve of the training.

The last row's `checkpoint` is the digest of a folder in the store: weights, tokenizer and model card. An unfinished
run keeps its checkpoint in the scratch folder of its build key and goes on from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bqbuild.config.specs import TrainSpec
from bqbuild.core.errors import BuildError
from bqbuild.core.events import Counts, NodeProgress
from bqbuild.core.ids import row_id
from bqbuild.core.records import ID, ROOTS, Node, Table
from bqbuild.nodes.base import BuildContext, Built
from bqbuild.nodes.llm_folder import CHECKPOINT, checkpoint_digest, llm_folder
from bqbuild.nodes.model_card import DataFacts, model_card
from bqbuild.train.documents import chat_documents, text_documents
from bqbuild.train.language_model import make_model, open_model, open_tokenizer, save_model
from bqbuild.train.loop import Point, TrainConfig, Work, train
from bqbuild.train.packing import Corpus, Document, write_corpus

CURVE_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("tokens", pa.int64()),
        ("learning_rate", pa.float64()),
        ("loss", pa.float64()),
        ("heldout_loss", pa.float64()),
        ("grad_norm", pa.float64()),
        (CHECKPOINT, pa.string()),
        (ID, pa.string()),
        (ROOTS, pa.list_(pa.string())),
    ]
)
"""Losses are in nats a token; step 0 is the base. `_bq_roots` is empty: a step comes from all rows."""

TRAIN, HELDOUT = "train", "heldout"
"""The values of the split column."""


class TrainKind:
    """The kind as the registry knows it."""

    def build(self, node: Node, inputs: Mapping[str, Table], ctx: BuildContext) -> Built:
        """Train, and store the weights and the curve. Raises BqError."""
        spec: TrainSpec = node.spec
        config = train_config(spec)
        folder = _base_folder(node, inputs, ctx)
        tokenizer = open_tokenizer(_tokenizer_folder(node, inputs, ctx, folder))
        training, heldout = _write_corpora(node, inputs[spec.from_], ctx, tokenizer)
        model = make_model(spec.base, tokenizer, spec.seed) if isinstance(spec.base, dict) else _opened(folder)
        _check_fit(node, model, tokenizer)

        def report(point: Point, steps: int) -> None:
            loss = point.heldout_loss if point.loss is None else point.loss
            note = "" if loss is None else f"loss {loss:.3f}"
            ctx.emit(NodeProgress(node.name, Counts(), done=point.step, total=steps, unit="steps", note=note))

        curve = train(model, training, heldout, config, Work(ctx.scratch / "run", _run_name(node, inputs, ctx), report))
        facts = DataFacts(training.documents, training.size, heldout.documents, heldout.size)
        card = model_card(node, ctx.project, inputs, facts, config, curve)
        checkpoint = ctx.store.folders.put(_save(model, tokenizer, card, ctx.scratch / "model"))
        return Built(_write_curve(ctx, curve, checkpoint))


def train_config(spec: TrainSpec) -> TrainConfig:
    """The loop's settings as declared."""
    names = TrainConfig.__dataclass_fields__
    return TrainConfig(**{name: getattr(spec, name) for name in names})


def _base_folder(node: Node, inputs: Mapping[str, Table], ctx: BuildContext) -> Path | None:
    """The folder of the weights to start from; None for a config."""
    base = node.spec.base
    return None if isinstance(base, dict) else llm_folder(base, inputs, ctx, node.places.get("base", node.where))


def _tokenizer_folder(node: Node, inputs: Mapping[str, Table], ctx: BuildContext, base: Path | None) -> Path:
    if node.spec.tokenizer is not None:
        return llm_folder(node.spec.tokenizer, inputs, ctx, node.places.get("tokenizer", node.where))
    if base is None:
        hint = "for example `tokenizer: embedded`"
        raise BuildError(f"`{node.name}` starts from a config and names no tokenizer", where=node.where, hint=hint)
    return base


def _opened(folder: Path | None) -> PreTrainedModel:
    assert folder is not None  # a base that is no config has a folder
    return open_model(folder)


def _check_fit(node: Node, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """The tokenizer's tokens and the blocks must fit the model."""
    config = model.config.get_text_config()
    if len(tokenizer) > config.vocab_size:
        message = f"the tokenizer has {len(tokenizer)} tokens and the model only {config.vocab_size}"
        raise BuildError(message, where=node.places.get("tokenizer", node.where))
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and node.spec.seq_len > longest:
        message = f"seq_len {node.spec.seq_len} is longer than the {longest} tokens that the model takes"
        raise BuildError(message, where=node.places.get("seq_len", node.where))


def _write_corpora(
    node: Node, table: Table, ctx: BuildContext, tokenizer: PreTrainedTokenizerBase
) -> tuple[Corpus, Corpus]:
    """Tokenise the table into the scratch folder: the training documents, and the held-out ones."""
    spec: TrainSpec = node.spec
    split = spec.split
    for key, name in (("text", spec.text), ("split", split)):
        if name is not None and name not in table.user_columns:
            hint = "`split: null` trains on all rows" if key == "split" else None
            where = node.places.get(key, node.where)
            raise BuildError(f"`{spec.from_}` has no column `{name}`", where=where, hint=hint)
    corpora = []
    for part in (TRAIN, HELDOUT):
        documents = _documents(node, table, ctx, tokenizer, part if split else None)
        empty = part == HELDOUT and split is None
        corpora.append(write_corpus(iter(()) if empty else documents, ctx.scratch, part))
    if not corpora[0].size:
        hint = f"rows with `{split}` = '{TRAIN}' and a text are needed" if split else "the texts are empty"
        raise BuildError(f"`{spec.from_}` has no document to train on", where=node.where, hint=hint)
    return corpora[0], corpora[1]


def _documents(
    node: Node, table: Table, ctx: BuildContext, tokenizer: PreTrainedTokenizerBase, part: str | None
) -> Iterator[Document]:
    """The documents of one part of the table (None: all rows), a batch at a time."""
    spec: TrainSpec = node.spec
    chats = _holds_chats(table, spec.text)
    for batch in ctx.store.tables.batches(table, [spec.text, *([spec.split] if part and spec.split else [])]):
        values = batch.column(spec.text).to_pylist()
        if part is not None and spec.split is not None:
            splits = batch.column(spec.split).to_pylist()
            _check_splits(node, splits)
            values = [value for value, split in zip(values, splits, strict=True) if split == part]
        if any(value is None for value in values):
            message = f"`{spec.text}` of `{spec.from_}` is NULL in some row"
            raise BuildError(message, where=node.places.get("text", node.where), hint="filter such rows out")
        yield from chat_documents(tokenizer, values) if chats else text_documents(tokenizer, values)


def _holds_chats(table: Table, name: str) -> bool:
    """Chats are lists of messages, or JSON; texts are strings."""
    types = {column.name: column.type for column in table.columns}
    return name == "messages" or types[name] == "json" or types[name].endswith("[]")


def _check_splits(node: Node, splits: list[object]) -> None:
    strange = sorted({str(value) for value in splits} - {TRAIN, HELDOUT})
    if strange:
        message = f"`{node.spec.split}` of `{node.spec.from_}` holds '{strange[0]}'"
        hint = f"rows are '{TRAIN}' or '{HELDOUT}'; `split: null` trains on all rows"
        raise BuildError(message, where=node.places.get("split", node.where), hint=hint)


def _run_name(node: Node, inputs: Mapping[str, Table], ctx: BuildContext) -> str:
    """What an unfinished run started from. The scratch folder is the build key's, so this only guards against slips."""
    base = node.spec.base
    if isinstance(base, dict):
        return row_id("config", base)
    return row_id("base", checkpoint_digest(inputs[base], ctx) if base in inputs else base)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: str, folder: Path) -> Path:
    """A Hugging Face folder with its card; one that a killed build left is written anew."""
    shutil.rmtree(folder, ignore_errors=True)
    save_model(model, tokenizer, folder)
    (folder / "README.md").write_text(card, "utf-8")
    return folder


def _write_curve(ctx: BuildContext, curve: list[Point], checkpoint: str) -> Table:
    rows = [
        {
            **asdict(point),
            CHECKPOINT: checkpoint if point is curve[-1] else None,
            ID: row_id("train", point.step),
            ROOTS: [],
        }
        for point in curve
    ]
    writer = ctx.store.tables.writer(CURVE_SCHEMA)
    writer.write(pa.Table.from_pylist(rows, schema=CURVE_SCHEMA))
    return writer.commit()
