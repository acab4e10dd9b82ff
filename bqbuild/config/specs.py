"""The typed form of everything a user writes in YAML. One class a kind; unknown keys are errors everywhere.

Nothing here reads a file or checks a reference: `config.project` does that.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from bqbuild.config.settings import (
    BatchSpec,
    ConnectionSpec,
    PriceSpec,
    ProfilesSpec,
    ProjectSpec,
    PromptFrontMatter,
    TargetSpec,
)
from bqbuild.config.specbase import Columns, ColumnSpec, Scalar, Spec, Text, Texts, Value, listed

__all__ = [
    "SPECS",
    "AnnotateSpec",
    "BatchSpec",
    "BenchmarkSpec",
    "Benchmarks",
    "BudgetSpec",
    "ColumnSpec",
    "Columns",
    "CommonSpec",
    "ConnectionSpec",
    "DecontaminateRule",
    "DedupRule",
    "EvaluateSpec",
    "FilterRule",
    "FilterSpec",
    "JudgeRule",
    "LanguageRule",
    "LlmSpec",
    "MixInput",
    "MixInputs",
    "MixSpec",
    "ModelSpec",
    "OutputColumn",
    "OutputColumns",
    "OutputSpec",
    "PassRateSpec",
    "PriceSpec",
    "ProfilesSpec",
    "ProjectSpec",
    "PromptFrontMatter",
    "PythonSpec",
    "QualityRule",
    "RefineSpec",
    "Scalar",
    "SourceSpec",
    "Spec",
    "SqlSpec",
    "SynthesizeSpec",
    "TargetSpec",
    "Text",
    "Texts",
    "TrainSpec",
    "Value",
    "WeightRow",
    "WeightsFrom",
]


class CommonSpec(Spec):
    """Keys that every node takes."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")
    description: Text = ""
    tags: Texts = Field(default_factory=list)
    meta: dict[str, Value] = Field(default_factory=dict)
    enabled: bool = True
    columns: Columns = Field(default_factory=list)
    contract: Literal["enforced"] | None = None
    tests: list[Value] = Field(default_factory=list)
    group: str | None = None
    version: Text = "1"


class SourceSpec(CommonSpec):
    """Files that bqbuild reads and does not make. `path` is relative to `project/`, a glob, or `pkg://package/file`."""

    kind: Literal["source"] = "source"
    path: Texts
    format: Literal["jsonl", "csv", "parquet", "json", "text", "markdown"] | None = None
    key: Texts = Field(default_factory=list)
    license: str | None = None
    url: str | None = None
    sha256: str | None = None
    sample: Literal["all"] | None = None
    delimiter: str = ","


class SqlSpec(CommonSpec):
    """One SELECT. `sql` is the text as written, Jinja included."""

    kind: Literal["sql"] = "sql"
    sql: str
    materialized: Literal["table", "view", "ephemeral"] = "table"
    volatile: bool = False


class PythonSpec(CommonSpec):
    """A function over Arrow data. `function` is `file:name`, the file relative to `models/`, with or without `.py`.

    `mode: batch` maps a `pyarrow.RecordBatch` to one; `mode: table` maps one `pyarrow.Table` an input, its rows in the
    order of `_bq_id`, to a table.
    """

    kind: Literal["python"]
    from_: Texts = Field(alias="from", min_length=1)
    function: str
    mode: Literal["batch", "table"] = "batch"
    packages: Texts = Field(default_factory=list)
    args: dict[str, Value] = Field(default_factory=dict)
    reads: Texts | None = None
    """Columns that the function reads; all of them where this is left out."""


class OutputColumn(Spec):
    """A column that a reply makes. `values` closes the set of labels; `scale` is an inclusive range of integers."""

    type: str = "string"
    values: Texts | None = None
    scale: tuple[int, int] | None = None
    description: Text = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """The closed set of labels, as text; empty where the column is open."""
        if self.values is not None:
            return tuple(self.values)
        if self.scale is not None:
            return tuple(str(number) for number in range(self.scale[0], self.scale[1] + 1))
        return ()


def _output_columns(value: object) -> object:
    """A column written as a bare type is a column of that type."""
    if not isinstance(value, dict):
        return value
    return {name: {"type": rest} if isinstance(rest, str) else rest for name, rest in value.items()}


OutputColumns = Annotated[
    dict[str, OutputColumn],
    BeforeValidator(_output_columns, json_schema_input_type=dict[str, OutputColumn | str]),
]


class OutputSpec(Spec):
    """How a reply becomes columns."""

    format: Literal["json", "text", "tags", "choice"] = "text"
    columns: OutputColumns = Field(min_length=1)
    explode: bool = False
    max_items: int | None = Field(default=None, ge=1)
    """With `explode`: more items in one reply than this are cut, and the cut is recorded."""
    reasoning: str | None = None
    constrain: bool | None = None
    """Whether the schema is sent with the request; None leaves it to the connection."""

    @model_validator(mode="after")
    def _fits_format(self) -> OutputSpec:
        if self.format in ("text", "choice") and len(self.columns) != 1:
            raise ValueError(f"format {self.format} makes exactly one column, not {len(self.columns)}")
        if self.format == "choice" and not next(iter(self.columns.values())).labels:
            raise ValueError("format choice needs `values` or `scale` for its column")
        if self.explode and self.format not in ("json", "tags"):
            raise ValueError(f"format {self.format} cannot explode: use json or tags")
        return self


def _whole(output: OutputSpec) -> OutputSpec:
    if output.explode:
        raise ValueError("one row in, one row out: only `synthesize` can explode")
    return output


WholeOutput = Annotated[OutputSpec, AfterValidator(_whole)]
"""The output of a kind that makes one row of a reply."""


class BudgetSpec(Spec):
    """Where a node stops buying."""

    calls: int | None = Field(default=None, ge=0)
    cost: float | None = Field(default=None, ge=0)


def _written(value: object) -> object:
    """`on_error: null` is the word, though YAML reads it as nothing."""
    return "null" if value is None else value


OnError = Annotated[
    Literal["drop", "null", "fail"] | None,
    BeforeValidator(_written, json_schema_input_type=Literal["drop", "null", "fail"] | None),
]


class LlmSpec(CommonSpec):
    """The shape that the LLM kinds share. `on_error` None means the kind's own default."""

    from_: str = Field(alias="from")
    where: str | None = None
    prompt: str
    llm: str
    params: dict[str, Value] = Field(default_factory=dict)
    output: OutputSpec
    carry: Texts | None = None
    on_error: OnError = None
    max_error_rate: float = Field(default=0.05, ge=0, le=1)
    budget: BudgetSpec | None = None


class SynthesizeSpec(LlmSpec):
    """For each input row × matrix cell × sample, one call."""

    kind: Literal["synthesize"]
    matrix: dict[str, list[Value]] = Field(default_factory=dict)
    samples: int = Field(default=1, ge=1)


class RefineSpec(LlmSpec):
    """Rewrites named columns of a row; `accept` is a SQL predicate over the row, with `<col>_before` at hand."""

    kind: Literal["refine"]
    output: WholeOutput
    rounds: int = Field(default=1, ge=1)
    accept: str | None = None


class PassRateSpec(Spec):
    """Difficulty by sampling: `samples` answers, each compared with the column `reference`; see nodes/annotate.py."""

    samples: int = Field(ge=1)
    reference: str
    column: str = "pass_rate"
    compare: Literal["exact", "contains", "number"] = "exact"


class AnnotateSpec(LlmSpec):
    """Adds label columns."""

    kind: Literal["annotate"]
    output: WholeOutput
    votes: int = Field(default=1, ge=1)
    pass_rate: PassRateSpec | None = None


class JudgeRule(Spec):
    """An LLM judges each row; `accept` is a SQL predicate over the row and the judge's columns."""

    prompt: str
    llm: str
    output: WholeOutput
    accept: str
    params: dict[str, Value] = Field(default_factory=dict)


class DedupRule(Spec):
    """Keeps the first of equal (`exact`) or near-equal (`minhash`) rows, by `keep` (an ORDER BY) and then by id."""

    columns: Texts = Field(min_length=1)
    method: Literal["exact", "minhash"] = "exact"
    threshold: float = Field(default=0.8, gt=0, le=1)
    ngram: int = Field(default=5, ge=1)
    permutations: int = Field(default=128, ge=16)
    keep: str | None = None


class DecontaminateRule(Spec):
    """Drops rows that share an n-gram of `ngram` words (characters, in Chinese) with a benchmark."""

    against: Texts = Field(min_length=1)
    columns: Texts = Field(min_length=1)
    benchmark_columns: Texts = Field(min_length=1)
    ngram: int = Field(default=13, ge=1)


class LanguageRule(Spec):
    """Keeps rows whose column is in one of the languages (ISO 639-1)."""

    column: str
    allow: Texts = Field(min_length=1)


class QualityRule(Spec):
    """Keeps rows whose text passes simple signals; each limit is optional."""

    column: str
    min_chars: int | None = None
    max_chars: int | None = None
    max_symbol_ratio: float | None = None
    max_repeated_line_ratio: float | None = None
    max_repeated_ngram_ratio: float | None = None


class FilterRule(Spec):
    """One rule of a filter: a name and exactly one of the ways to decide."""

    name: str
    sql: str | None = None
    judge: JudgeRule | None = None
    dedup: DedupRule | None = None
    decontaminate: DecontaminateRule | None = None
    language: LanguageRule | None = None
    quality: QualityRule | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> FilterRule:
        if len(self.ways()) != 1:
            raise ValueError("a rule takes exactly one of sql, judge, dedup, decontaminate, language, quality")
        return self

    def ways(self) -> list[str]:
        """The ways that are given; a valid rule has one."""
        names = ("sql", "judge", "dedup", "decontaminate", "language", "quality")
        return [name for name in names if getattr(self, name) is not None]


class FilterSpec(CommonSpec):
    """Ordered rules; a row must pass all. The rejects are the side table `<name>__rejects`."""

    kind: Literal["filter"]
    from_: str = Field(alias="from")
    rules: list[FilterRule] = Field(min_length=1)
    max_error_rate: float = Field(default=0.05, ge=0, le=1)
    budget: BudgetSpec | None = None


class WeightsFrom(Spec):
    """Weights read from another model: its `by` columns name the stratum, `column` is the weight."""

    from_: str = Field(alias="from")
    column: str = "weight"


class WeightRow(Spec):
    """A weight given for the strata whose columns have these values."""

    when: dict[str, Scalar]
    weight: float = Field(ge=0)


class MixInput(Spec):
    """One input of a mix and the weight of its rows against the other inputs'."""

    model: str
    weight: float = Field(default=1.0, gt=0)


def _mix_inputs(value: object) -> object:
    items = listed(value)
    return [{"model": item} if isinstance(item, str) else item for item in items] if isinstance(items, list) else items


MixInputs = Annotated[
    list[MixInput],
    BeforeValidator(_mix_inputs, json_schema_input_type=list[MixInput | str] | MixInput | str),
]


class MixSpec(CommonSpec):
    """Samples and weights its inputs to a budget of rows or tokens, stratified, and splits train from heldout.

    `text` is a Jinja template over the row, rendered into the column `text`; `tokenizer` names what counts tokens.
    """

    kind: Literal["mix"]
    from_: MixInputs = Field(alias="from", min_length=1)
    by: Texts = Field(default_factory=list)
    weights: WeightsFrom | list[WeightRow] | None = None
    rows: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    tokenizer: str = "embedded"
    repeat: int = Field(default=1, ge=1)
    """How many copies of a row a heavy stratum may hold."""
    text: str | None = None
    heldout: float = Field(default=0.0, ge=0, lt=1)
    seed: int = 0


class TrainSpec(CommonSpec):
    """Mid-trains a causal LM on a table; lengths and budgets are in tokens, rates per step. See train/loop.py."""

    kind: Literal["train"]
    from_: str = Field(alias="from")
    base: str | dict[str, Value] = "embedded"
    """`embedded`, a local path, a hub id, another train node's name, or a transformers config to start from scratch."""
    tokenizer: str | None = None
    text: str = "text"
    split: str | None = "split"
    seq_len: int = Field(default=512, ge=8)
    tokens: int = Field(ge=1)
    batch_size: int = Field(default=8, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    schedule: Literal["wsd", "cosine", "constant"] = "wsd"
    warmup: float = Field(default=0.05, ge=0, le=1)
    decay: float = Field(default=0.2, ge=0, le=1)
    weight_decay: float = Field(default=0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = Field(default=1.0, gt=0)
    dtype: Literal["fp32", "bf16"] = "fp32"
    eval_every: int = Field(default=50, ge=1)
    eval_tokens: int = Field(default=16384, ge=1)
    checkpoint_every: int = Field(default=100, ge=1)
    seed: int = 0
    threads: int | None = None


class BenchmarkSpec(Spec):
    """A table of questions and which of its columns hold what; `answer` is an index, or a letter, of `choices`."""

    model: str
    name: str | None = None
    question: str = "question"
    choices: str = "choices"
    answer: str = "answer"
    where: str | None = None
    limit: int | None = Field(default=None, ge=1)


def _benchmarks(value: object) -> object:
    items = listed(value)
    return [{"model": item} if isinstance(item, str) else item for item in items] if isinstance(items, list) else items


Benchmarks = Annotated[
    list[BenchmarkSpec],
    BeforeValidator(_benchmarks, json_schema_input_type=list[BenchmarkSpec | str] | BenchmarkSpec | str),
]


class EvaluateSpec(CommonSpec):
    """Scores LLMs on benchmark tables, one row a question and model.

    `models` maps a label to `embedded`, a path, a hub id, or the name of a train node. `by` are columns of the
    benchmarks by which the side table `<name>__summary` groups.
    """

    kind: Literal["evaluate"]
    from_: Benchmarks = Field(alias="from", min_length=1)
    models: dict[str, str] = Field(min_length=1)
    baseline: str | None = None
    by: Texts = Field(default_factory=list)
    prompt: str | None = None
    few_shot: int = Field(default=0, ge=0)
    seed: int = 0
    dtype: Literal["fp32", "bf16"] = "fp32"


ModelSpec = (
    SourceSpec
    | SqlSpec
    | PythonSpec
    | SynthesizeSpec
    | RefineSpec
    | AnnotateSpec
    | FilterSpec
    | MixSpec
    | TrainSpec
    | EvaluateSpec
)

SPECS: dict[str, type[CommonSpec]] = {
    "source": SourceSpec,
    "sql": SqlSpec,
    "python": PythonSpec,
    "synthesize": SynthesizeSpec,
    "refine": RefineSpec,
    "annotate": AnnotateSpec,
    "filter": FilterSpec,
    "mix": MixSpec,
    "train": TrainSpec,
    "evaluate": EvaluateSpec,
}
