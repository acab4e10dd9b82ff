"""kind: mix. Samples and weights its inputs to a budget, stratified, and splits train from heldout by root.

    scan     every row once: rank (a hash of seed and id), stratum, split, tokens     numbers only, 40 bytes a row
    choose   how often each row is taken                                              quality.sampling
    write    the rows taken, their text rendered, in an order that is a hash too

Strata weigh the same where no weights are given. A budget is kept, or what there is is taken, with a warning. Rows
whose roots are on different sides of the split are dropped and counted. Held-out rows are never repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from bqbuild.config.prompts import RenderError
from bqbuild.config.rowtemplate import RowTemplate
from bqbuild.config.specs import MixInput, MixSpec
from bqbuild.core.errors import BuildError, Where, did_you_mean
from bqbuild.core.events import Counts, NodeProgress, Warned
from bqbuild.core.ids import row_id
from bqbuild.core.records import CALLS, ID, LINEAGE_COLUMNS, PARENT, ROOTS, Node, Table
from bqbuild.llm.weights import resolve_weights
from bqbuild.nodes.base import BuildContext, Built
from bqbuild.nodes.strata import Stratum, given_weights, in_order, read_weights, shown, stratum_value, weight_of
from bqbuild.quality import sampling
from bqbuild.store.base import ORDER
from bqbuild.store.types import schema_of

TEXT, SPLIT, TOKENS = "text", "split", "tokens"

SPLITS = ("train", "heldout")
DISAGREES = 2

TextCounter = Callable[[Sequence[str]], list[int]]


class MixKind:
    """Builds mixes."""

    semantics = 1

    def build(self, node: Node, inputs: Mapping[str, Table], ctx: BuildContext) -> Built:
        """The rows taken. Raises BuildError for what does not fit together."""
        mix = _open(node, inputs, ctx)
        scan = _Scan.of(mix)
        copies = _choose(mix, scan)
        return Built(_write(mix, scan, copies))


@dataclass(frozen=True, slots=True)
class _Mix:
    """One mix, its declaration resolved against its inputs. `schema` is that of the rows it makes."""

    node: Node
    spec: MixSpec
    inputs: Mapping[str, Table]
    ctx: BuildContext
    schema: pa.Schema
    template: RowTemplate | None
    count_tokens: TextCounter | None

    def where(self, key: str) -> Where:
        return self.node.places.get(key, self.node.where)

    def text_columns(self) -> list[str]:
        """The columns that make a row's text."""
        return list(self.template.columns) if self.template else [TEXT]

    def batches(self, entry: MixInput, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """The rows of an input; of `columns` those that it has."""
        table = self.inputs[entry.model]
        names = {column.name for column in table.columns}
        return self.ctx.store.tables.batches(table, None if columns is None else [c for c in columns if c in names])

    def texts(self, batch: pa.RecordBatch) -> list[str | None]:
        """The text of each row. Raises BuildError, naming the row, where the template cannot be rendered."""
        if self.template is None:
            return list(batch.column(TEXT).to_pylist()) if TEXT in batch.schema.names else [None] * batch.num_rows
        names = [name for name in self.template.columns if name in batch.schema.names]
        # what an input lacks is NULL, as it will be in the mix
        empty: dict[str, Any] = dict.fromkeys(self.template.columns)
        texts: list[str | None] = []
        for own_id, row in zip(batch.column(ID).to_pylist(), batch.select(names).to_pylist(), strict=True):
            try:
                texts.append(self.template.render(empty | row))
            except RenderError as error:
                raise BuildError(
                    f"the text of row {own_id}: {error.message}",
                    where=error.where or self.where("text"),
                    hint=error.hint,
                ) from error
        return texts

    def warn(self, message: str) -> None:
        self.ctx.emit(Warned(f"`{self.node.name}`: {message}", self.node.name))


def _open(node: Node, inputs: Mapping[str, Table], ctx: BuildContext) -> _Mix:
    spec: MixSpec = node.spec
    place = node.places.get
    if spec.rows is not None and spec.tokens is not None:
        raise BuildError(
            f"`{node.name}` has a budget of rows and one of tokens", where=place("rows", node.where), hint="keep one"
        )
    fields = _union(node, spec, inputs)
    template = None
    if spec.text is not None:
        template = ctx.project.row_template(spec.text, place("text", node.where))
        _require(template.columns, fields, "the text reads", place("text", node.where))
        fields[TEXT] = pa.field(TEXT, pa.string())
    _require(spec.by, fields, "`by` names", place("by", node.where))
    fields[SPLIT] = pa.field(SPLIT, pa.string())
    counter = None
    if spec.tokens is not None:
        if TEXT not in fields or fields[TEXT].type != pa.string():
            raise BuildError(
                f"`{node.name}` has a budget of tokens and no text to count",
                where=place("tokens", node.where),
                hint="give it a `text` template, or its inputs a column `text`",
            )
        fields[TOKENS] = pa.field(TOKENS, pa.int64())
        counter = _token_counter(spec.tokenizer)
    lineage = [(ID, pa.string()), (PARENT, pa.string()), (CALLS, pa.list_(pa.string())), (ROOTS, pa.list_(pa.string()))]
    schema = pa.schema([*fields.values(), *(pa.field(name, kind) for name, kind in lineage)])
    return _Mix(node, spec, inputs, ctx, schema, template, counter)


def _union(node: Node, spec: MixSpec, inputs: Mapping[str, Table]) -> dict[str, pa.Field]:
    """The user's columns of all inputs by name. Raises BuildError where two inputs differ about a type or spelling."""
    fields: dict[str, pa.Field] = {}
    first: dict[str, tuple[str, str, str]] = {}
    for entry in spec.from_:
        for column in inputs[entry.model].columns:
            if column.name in LINEAGE_COLUMNS:
                continue
            name, kind, model = first.setdefault(column.name.lower(), (column.name, column.type, entry.model))
            if (name, kind) != (column.name, column.type):
                raise BuildError(
                    f"column `{name}` is {kind} in `{model}`, and `{column.name}` is {column.type} in `{entry.model}`",
                    where=node.places.get("from", node.where),
                    hint="cast or rename it in a SQL model",
                )
            fields.setdefault(name, schema_of([column]).field(0))
    return fields


def _require(names: Iterable[str], fields: Mapping[str, pa.Field], reader: str, where: Where) -> None:
    for name in names:
        if name not in fields:
            raise BuildError(
                f"{reader} `{name}`, which no input has",
                where=where,
                hint=did_you_mean(name, fields) or f"they have {', '.join(fields)}",
            )


def _token_counter(name: str) -> TextCounter:
    # a compiled library that only token budgets need; it comes with transformers
    from tokenizers import Tokenizer

    path = resolve_weights(name) / "tokenizer.json"
    if not path.is_file():
        raise BuildError(f"`{name}` has no tokenizer.json", hint="name a model whose tokenizer is a fast one")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(found.ids) for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


@dataclass(slots=True)
class _Scan:
    """What is known of every row of every input, end to end: all arrays are (rows)."""

    hashes: npt.NDArray[np.uint64]
    strata: npt.NDArray[np.int64]
    splits: npt.NDArray[np.int8]
    tokens: npt.NDArray[np.int64]
    inputs: npt.NDArray[np.int16]
    names: list[Stratum] = field(default_factory=list)

    @staticmethod
    def of(mix: _Mix) -> _Scan:
        """Read every row once."""
        known: dict[Stratum, int] = {}
        parts: list[tuple[npt.NDArray[Any], ...]] = []
        wanted = [*mix.spec.by, *(mix.text_columns() if mix.count_tokens else []), ID, ROOTS]
        total = sum(mix.inputs[entry.model].rows for entry in mix.spec.from_)
        done = 0
        for number, entry in enumerate(mix.spec.from_):
            for batch in mix.batches(entry, list(dict.fromkeys(wanted))):
                parts.append((*_scan_batch(mix, batch, known), np.full(batch.num_rows, number, np.int16)))
                done += batch.num_rows
                mix.ctx.emit(NodeProgress(mix.node.name, Counts(), done, total, note="ranking"))
        if not parts:
            empty = np.empty(0, np.int64)
            return _Scan(np.empty((0, 2), np.uint64), empty, empty.astype(np.int8), empty, empty.astype(np.int16))
        # strata are numbered as they come, but used in the order of their names
        names = in_order(known)
        renumbered = np.empty(len(names), np.int64)
        for number, name in enumerate(names):
            renumbered[known[name]] = number
        hashes, strata, splits, tokens, inputs = (np.concatenate(column) for column in zip(*parts, strict=True))
        return _Scan(hashes, renumbered[strata], splits, tokens, inputs, names)

    def occurrences(self) -> npt.NDArray[np.int64]:
        """How many earlier inputs hold a row of the same id."""
        order = np.lexsort((self.inputs, self.hashes[:, 1], self.hashes[:, 0]))
        same = np.zeros(len(order), dtype=bool)
        same[1:] = np.all(self.hashes[order][1:] == self.hashes[order][:-1], axis=1)
        index = np.arange(len(order))
        starts = np.maximum.accumulate(np.where(same, 0, index)) if len(order) else index
        found = np.empty(len(order), np.int64)
        found[order] = index - starts
        return found


def _scan_batch(mix: _Mix, batch: pa.RecordBatch, known: dict[Stratum, int]) -> tuple[npt.NDArray[Any], ...]:
    ids = batch.column(ID).to_pylist()
    columns = [
        batch.column(name).to_pylist() if name in batch.schema.names else [None] * len(ids) for name in mix.spec.by
    ]
    values = zip(*columns, strict=True) if columns else ((),) * len(ids)
    strata = [known.setdefault(tuple(map(stratum_value, row)), len(known)) for row in values]
    tokens = mix.count_tokens([text or "" for text in mix.texts(batch)]) if mix.count_tokens else [1] * len(ids)
    return (
        sampling.hashes(mix.spec.seed, ids),
        np.array(strata, np.int64),
        np.array(
            [_split(roots, own, mix.spec.heldout) for roots, own in zip(_roots(batch), ids, strict=True)], np.int8
        ),
        np.array(tokens, np.int64),
    )


def _roots(batch: pa.RecordBatch) -> list[list[str] | None]:
    return list(batch.column(ROOTS).to_pylist()) if ROOTS in batch.schema.names else [None] * batch.num_rows


def _split(roots: Sequence[str] | None, own_id: str, fraction: float) -> int:
    split = sampling.split_of(roots or [own_id], fraction)
    return DISAGREES if split is None else SPLITS.index(split)


def _choose(mix: _Mix, scan: _Scan) -> npt.NDArray[np.int64]:
    """How often each row of the scan is taken."""
    copies = np.zeros(len(scan.strata), np.int64)
    if not scan.names:
        return copies
    usable = scan.splits != DISAGREES
    dropped = int(np.count_nonzero(~usable))
    if dropped:
        mix.warn(f"{dropped} rows come from training and held-out sources at once, and were left out")
    weights = _weights(mix, scan.names)
    entry_weights = np.array([entry.weight for entry in mix.spec.from_], np.float64)[scan.inputs]
    rows = np.flatnonzero(usable)
    rows = rows[sampling.queue_order(scan.hashes[rows], entry_weights[rows], scan.strata[rows])]
    members = np.split(rows, np.searchsorted(scan.strata[rows], np.arange(1, len(scan.names))))
    repeat = mix.spec.repeat if _has_budget(mix.spec) else 1
    queues = [
        sampling.Queue(scan.tokens[inside], scan.splits[inside] == SPLITS.index("train"), repeat) for inside in members
    ]
    for inside, queue, places in zip(members, queues, _places(mix, queues, weights), strict=True):
        copies[inside] = queue.copies(places)
    return copies


def _has_budget(spec: MixSpec) -> bool:
    return spec.rows is not None or spec.tokens is not None


def _places(mix: _Mix, queues: Sequence[sampling.Queue], weights: Sequence[float]) -> list[int]:
    """How much of each stratum's queue is taken."""
    if not any(weights):
        raise BuildError(f"every stratum of `{mix.node.name}` has the weight 0", where=mix.where("weights"))
    unit, budget = ("tokens", mix.spec.tokens) if mix.spec.tokens is not None else ("rows", mix.spec.rows)
    if budget is None:
        weighted = mix.spec.weights is not None or len({entry.weight for entry in mix.spec.from_}) > 1
        if weighted and len(set(weights) - {0.0}) > 1:
            mix.warn("weights choose nothing without a budget of `rows` or `tokens`: every row is taken")
        return [queue.length if weight > 0 else 0 for queue, weight in zip(queues, weights, strict=True)]
    there_is = sum(queue.size for queue, weight in zip(queues, weights, strict=True) if weight > 0)
    if there_is < budget:
        mix.warn(f"asked for {budget:,} {unit}, but there are {there_is:,}: all were taken")
    take = sampling.take_sizes if mix.spec.tokens is not None else sampling.take_rows
    return take(queues, weights, budget)


def _weights(mix: _Mix, strata: Sequence[Stratum]) -> list[float]:
    """The weight of each stratum, in its order."""
    declared = mix.spec.weights
    where = mix.where("weights")
    if declared is None:
        return [1.0] * len(strata)
    if isinstance(declared, list):
        given = given_weights(declared, mix.spec.by, where)
        return [weight_of(stratum, given) for stratum in strata]
    table = mix.inputs[declared.from_]
    _require_columns(table, [*mix.spec.by, declared.column], declared.from_, where)
    rows = (
        (tuple(map(stratum_value, row[:-1])), row[-1])
        for batch in mix.ctx.store.tables.batches(table, [*mix.spec.by, declared.column])
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    )
    weights = read_weights(rows, mix.spec.by, declared.from_, where)
    missing = [stratum for stratum in strata if stratum not in weights]
    # the mean says nothing for or against, whatever the weights add up to
    mean = sum(weights[stratum] for stratum in in_order(weights)) / len(weights) if weights else 1.0
    if missing:
        named = "; ".join(shown(mix.spec.by, stratum) for stratum in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        mix.warn(f"`{declared.from_}` has no weight for {named}{more}: the mean, {mean:g}, was used")
    return [weights.get(stratum, mean) for stratum in strata]


def _require_columns(table: Table, names: Sequence[str], model: str, where: Where) -> None:
    has = [column.name for column in table.columns]
    for name in names:
        if name not in has:
            raise BuildError(
                f"the weights of `{model}` need its column `{name}`, which it does not have",
                where=where,
                hint=did_you_mean(name, has) or f"it has {', '.join(table.user_columns)}",
            )


@dataclass(frozen=True, slots=True)
class _Taken:
    """What was decided about rows: all arrays are (rows)."""

    copies: npt.NDArray[np.int64]
    occurrences: npt.NDArray[np.int64]
    splits: npt.NDArray[np.int8]
    tokens: npt.NDArray[np.int64]

    def at(self, rows: slice | npt.NDArray[np.int64]) -> _Taken:
        return _Taken(self.copies[rows], self.occurrences[rows], self.splits[rows], self.tokens[rows])


def _write(mix: _Mix, scan: _Scan, copies: npt.NDArray[np.int64]) -> Table:
    writer = mix.ctx.store.tables.writer(mix.schema, ordered=True)
    everything = _Taken(copies, scan.occurrences(), scan.splits, scan.tokens)
    total = int(copies.sum())
    start = written = 0
    try:
        for entry in mix.spec.from_:
            for batch in mix.batches(entry, None):
                part = everything.at(slice(start, start + batch.num_rows))
                start += batch.num_rows
                taken = np.flatnonzero(part.copies)
                if len(taken):
                    writer.write(_mixed(mix, batch.take(pa.array(taken)), part.at(taken)))
                    written += int(part.copies.sum())
                    mix.ctx.emit(NodeProgress(mix.node.name, Counts(rows=written), written, total, note="writing"))
        return writer.commit()
    except BaseException:
        writer.abort()
        raise


def _mixed(mix: _Mix, chosen: pa.RecordBatch, taken: _Taken) -> pa.RecordBatch:
    """The rows that a batch gives to the mix, each as often as it is taken, in front of them what sorts them."""
    made = _made(mix, chosen, taken)
    once = [_column(field, chosen, made) for field in mix.schema]
    rows = np.repeat(np.arange(chosen.num_rows), taken.copies)
    numbers = np.concatenate([np.arange(count) for count in taken.copies.tolist()])
    repeated = pa.RecordBatch.from_arrays(once, schema=mix.schema).take(pa.array(rows))
    ids = [
        _copy_id(parent, copy, occurrence)
        for parent, copy, occurrence in zip(
            repeated.column(PARENT).to_pylist(), numbers.tolist(), taken.occurrences[rows].tolist(), strict=True
        )
    ]
    order = [xxhash.xxh3_128_digest(f"{mix.spec.seed}:{own}".encode()) for own in ids]
    arrays = [pa.array(ids, pa.string()) if name == ID else repeated.column(name) for name in repeated.schema.names]
    schema = mix.schema.insert(0, pa.field(ORDER, pa.binary()))
    return pa.RecordBatch.from_arrays([pa.array(order, pa.binary()), *arrays], schema=schema)


def _made(mix: _Mix, chosen: pa.RecordBatch, taken: _Taken) -> dict[str, pa.Array]:
    """The columns that the mix makes, for rows that are there once."""
    parents = chosen.column(ID).to_pylist()
    roots = [found or [own] for found, own in zip(_roots(chosen), parents, strict=True)]
    made: dict[str, pa.Array] = {
        SPLIT: pa.array([SPLITS[split] for split in taken.splits.tolist()], pa.string()),
        PARENT: chosen.column(ID),
        ROOTS: pa.array(roots, pa.list_(pa.string())),
    }
    if mix.template is not None:
        made[TEXT] = pa.array(mix.texts(chosen), pa.string())
    if mix.count_tokens is not None:
        made[TOKENS] = pa.array(taken.tokens)
    if CALLS not in chosen.schema.names:
        made[CALLS] = pa.array([[]] * len(parents), pa.list_(pa.string()))
    return made


def _copy_id(parent: str, copy: int, occurrence: int) -> str:
    """The id of a copy. A row that reaches the mix through two inputs is there once for each."""
    return row_id("mix", parent, copy, occurrence) if occurrence else row_id("mix", parent, copy)


def _column(wanted: pa.Field, chosen: pa.RecordBatch, made: Mapping[str, pa.Array]) -> pa.Array:
    if wanted.name in made:
        return made[wanted.name]
    if wanted.name in chosen.schema.names:
        return chosen.column(wanted.name)
    return pa.nulls(chosen.num_rows, wanted.type)
