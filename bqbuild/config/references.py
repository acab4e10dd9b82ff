"""What a node names: other nodes, prompts, connections. Each must be there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from bqbuild.config.declarations import Declared
from bqbuild.config.mistakes import Mistakes
from bqbuild.config.prompts import Prompts, PromptTemplate
from bqbuild.config.specs import (
    AnnotateSpec,
    BenchmarkSpec,
    EvaluateSpec,
    FilterSpec,
    LlmSpec,
    MixInput,
    MixSpec,
    OutputSpec,
    PythonSpec,
    RefineSpec,
    SynthesizeSpec,
    TargetSpec,
    TrainSpec,
    WeightsFrom,
)
from bqbuild.config.sqltext import Mention
from bqbuild.core.errors import Where, did_you_mean
from bqbuild.core.records import NodeName, Ref

SIDES: Mapping[str, tuple[str, ...]] = {
    "synthesize": ("errors",),
    "refine": ("errors",),
    "annotate": ("errors",),
    "filter": ("rejects", "errors"),
    "evaluate": ("summary",),
}
"""The side tables of each kind: `<name>__<side>`."""

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """Who is there: the enabled nodes and the disabled ones, by name."""

    enabled: Mapping[str, Declared]
    disabled: Mapping[str, Declared]
    broken: frozenset[str] = frozenset()
    """Nodes whose own declaration has mistakes: that they are not there is no second mistake."""

    def find(self, mention: Mention, mistakes: Mistakes) -> Ref | None:
        """The node, or the side table, that is meant. None, with the mistake noted, where there is none."""
        name, side = mention.name, ""
        if name not in self.enabled and "__" in name:
            base, _, last = name.rpartition("__")
            if base in self.enabled or base in self.disabled or base in self.broken:
                name, side = base, last
        node = self.enabled.get(name)
        if node is None:
            self._missing(name, mention, mistakes)
            return None
        if side and side not in SIDES.get(node.kind, ()):
            has = ", ".join(f"{name}__{each}" for each in SIDES.get(node.kind, ())) or "none"
            mistakes.add(
                f"'{name}' ({node.kind}) has no table '{mention.name}'", mention.place(), f"side tables: {has}"
            )
            return None
        if mention.kind == "ref" and node.kind == "source":
            mistakes.add(f"'{name}' is a source", mention.place(), f"write source('{name}')")
        if mention.kind == "source" and node.kind != "source":
            mistakes.add(f"'{name}' is a model", mention.place(), f"write ref('{name}')")
        return Ref(NodeName(name), side)

    def _missing(self, name: str, mention: Mention, mistakes: Mistakes) -> None:
        if name in self.broken:
            return
        if name in self.disabled:
            where = self.disabled[name].places.get("enabled", self.disabled[name].where)
            mistakes.add(f"'{name}' is disabled", mention.place(), f"see {where}")
            return
        what = {"ref": "model", "source": "source"}.get(mention.kind, "model or source")
        sides = [f"{each}__{side}" for each, node in self.enabled.items() for side in SIDES.get(node.kind, ())]
        mistakes.add(f"there is no {what} '{name}'", mention.place(), did_you_mean(name, [*self.enabled, *sides]))


def mentions(node: Declared, names: Names) -> Iterator[Mention]:
    """The nodes that a declaration names."""
    if node.sql is not None:
        yield from node.sql.live_mentions()
        return
    for name, key in _named(node, names):
        yield Mention("any", name, partial(node.declaration.value_where, key))


def _named(node: Declared, names: Names) -> Iterator[tuple[str, Key]]:
    spec = node.spec
    if isinstance(spec, LlmSpec | FilterSpec | TrainSpec):
        yield spec.from_, ("from",)
    if isinstance(spec, PythonSpec):
        yield from ((name, ("from", number)) for number, name in enumerate(spec.from_))
    elif isinstance(spec, MixSpec | EvaluateSpec):
        inputs: Sequence[MixInput | BenchmarkSpec] = spec.from_
        yield from ((each.model, ("from", number, "model")) for number, each in enumerate(inputs))
    if isinstance(spec, FilterSpec):
        yield from _benchmarks(spec)
    elif isinstance(spec, MixSpec) and isinstance(spec.weights, WeightsFrom):
        yield spec.weights.from_, ("weights", "from")
    elif isinstance(spec, TrainSpec) and isinstance(spec.base, str) and _is_trained(spec.base, names):
        yield spec.base, ("base",)
    elif isinstance(spec, EvaluateSpec):
        yield from ((model, ("models", label)) for label, model in spec.models.items() if _is_trained(model, names))


def _benchmarks(spec: FilterSpec) -> Iterator[tuple[str, Key]]:
    for number, rule in enumerate(spec.rules):
        for place, name in enumerate(rule.decontaminate.against if rule.decontaminate else ()):
            yield name, ("rules", number, "decontaminate", "against", place)


def _is_trained(name: str, names: Names) -> bool:
    """Whether a model to start from or to score is a train node; else it is weights from outside."""
    node = names.enabled.get(name) or names.disabled.get(name)
    return node is not None and node.kind == "train"


def check_name(node: Declared, names: Names, mistakes: Mistakes) -> None:
    """Names that bqbuild gives itself are taken."""
    name = node.spec.name
    if name.lower().startswith("_bq_"):
        mistakes.add(f"the name '{name}' is bqbuild's own", node.where)
    base, _, side = name.rpartition("__")
    owner = names.enabled.get(base)
    if owner is not None and side in SIDES.get(owner.kind, ()):
        mistakes.add(f"'{name}' is the name of a side table of '{base}'", node.where, f"see {owner.where}")


def check_llm_parts(node: Declared, prompts: Prompts, target: TargetSpec | None, mistakes: Mistakes) -> None:
    """Prompts and connections that the node names must be there; its output must not clash with what is given."""
    for output, prompt, llm, key in _conversations(node):
        if not prompts.has(prompt):
            hint = prompts.nearest(prompt) or f"write prompts/{prompt}.md"
            mistakes.add(f"there is no prompt '{prompt}'", node.declaration.value_where((*key, "prompt")), hint)
        if llm is not None and target is not None and llm not in target.llms:
            hint = did_you_mean(llm, target.llms) or f"connections of the target: {', '.join(target.llms) or 'none'}"
            mistakes.add(f"there is no LLM connection '{llm}'", node.declaration.value_where((*key, "llm")), hint)
        for column in output.columns if output else ():
            if column.lower().startswith("_bq_"):
                where = node.declaration.where((*key, "output", "columns", column))
                mistakes.add(f"the column name '{column}' is bqbuild's own", where)
    if isinstance(node.spec, SynthesizeSpec):
        _check_matrix(node, node.spec, prompts.found.get(node.spec.prompt), mistakes)


def _conversations(node: Declared) -> Iterator[tuple[OutputSpec | None, str, str | None, Key]]:
    """The LLM conversations of a node: output, prompt, connection, and where they stand."""
    spec = node.spec
    if isinstance(spec, SynthesizeSpec | RefineSpec | AnnotateSpec):
        yield spec.output, spec.prompt, spec.llm, ()
    elif isinstance(spec, FilterSpec):
        for number, rule in enumerate(spec.rules):
            if rule.judge is not None:
                yield rule.judge.output, rule.judge.prompt, rule.judge.llm, ("rules", number, "judge")
    elif isinstance(spec, EvaluateSpec) and spec.prompt is not None:
        yield None, spec.prompt, None, ()


def _check_matrix(node: Declared, spec: SynthesizeSpec, prompt: PromptTemplate | None, mistakes: Mistakes) -> None:
    where = node.declaration.where
    for key in matrix_keys(spec):
        if key in spec.output.columns:
            place = where(("output", "columns", key))
            mistakes.add(f"the output column '{key}' is a key of the matrix already", place)
        if prompt is not None and key not in prompt.columns:
            place = _matrix_place(node, key)
            mistakes.warn(f"the prompt '{spec.prompt}' never reads the matrix key '{key}'", place)
        if key.lower().startswith("_bq_"):
            mistakes.add(f"the column name '{key}' is bqbuild's own", _matrix_place(node, key))
    for section in ("include", "exclude"):
        for number, cell in enumerate(spec.matrix.get(section, ())):
            if not isinstance(cell, dict):
                mistakes.add(f"`matrix.{section}` takes mappings of key to value", where(("matrix", section, number)))


def matrix_keys(spec: SynthesizeSpec) -> list[str]:
    """The keys of the matrix, those that only `include` brings last."""
    keys = [key for key in spec.matrix if key not in ("include", "exclude")]
    extra = [key for cell in spec.matrix.get("include", ()) if isinstance(cell, dict) for key in cell]
    return list(dict.fromkeys([*keys, *extra]))


def _matrix_place(node: Declared, key: str) -> Where:
    return node.declaration.where(("matrix", key))
