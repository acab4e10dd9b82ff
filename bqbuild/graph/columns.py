"""The columns of every node, as far as they can be known before anything runs, and the mistakes that this shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bqbuild.config.project import Project
from bqbuild.core.errors import BqError, ProjectError, Where, did_you_mean
from bqbuild.core.records import LINEAGE_COLUMNS, Column, Node, NodeName
from bqbuild.graph.dag import Dag
from bqbuild.graph.matrix import matrix_columns
from bqbuild.graph.ordering import check_order
from bqbuild.graph.predicates import parse_predicate
from bqbuild.graph.sql import KnownSql

SIDE_COLUMNS = {"errors": ("cell", "reason", "message", "answered", "response")}
"""Columns of side tables that do not depend on the node; those of `rejects` are the node's input's and two more."""

Names = Sequence[str] | None
"""Column names in order; None where they cannot be known yet."""


@dataclass(slots=True)
class Columns:
    """What is known: `known` maps a node to its columns, or to None; `errors` are mistakes against them."""

    known: dict[NodeName, Names] = field(default_factory=dict)
    errors: list[BqError] = field(default_factory=list)

    def of(self, name: str) -> Names:
        """The columns of a node or of a side table (`kept__rejects`)."""
        if name in self.known:
            return self.known[NodeName(name)]
        node, _, side = name.rpartition("__")
        if side == "rejects" and self.known.get(NodeName(node)) is not None:
            return [*(self.known[NodeName(node)] or ()), "_bq_rule", "_bq_reason"]
        return list(SIDE_COLUMNS[side]) if side in SIDE_COLUMNS else None


def check_columns(project: Project, dag: Dag) -> Columns:
    """Walk the graph in order, from the columns of sources down."""
    columns = Columns()
    for name in dag.order:
        node = project.nodes[name]
        try:
            columns.known[name] = _KINDS[node.kind](node, project, columns)
        except ProjectError as error:
            columns.errors.append(error)
            columns.known[name] = None
    return columns


def _source(node: Node, project: Project, columns: Columns) -> Names:
    locked = project.lock.columns(node.name)
    if locked is None:
        return None
    return [column.name for column in locked]


def _sql(node: Node, project: Project, columns: Columns) -> Names:
    model = KnownSql(node, project.findings)
    given = {str(ref): columns.of(str(ref)) for ref in node.refs}
    # types do not matter for names
    schemas = {
        name: None if names is None else [Column(column, "varchar") for column in names]
        for name, names in given.items()
    }
    return model.output_columns(schemas)


def _python(node: Node, project: Project, columns: Columns) -> Names:
    return [column.name for column in node.spec.columns] or None


def _synthesize(node: Node, project: Project, columns: Columns) -> Names:
    given = _llm_input(node, project, columns)
    matrix = list(matrix_columns(node.spec.matrix))
    return _joined(node, columns, given, [*matrix, *_made(node)])


def _annotate(node: Node, project: Project, columns: Columns) -> Names:
    given = _llm_input(node, project, columns)
    if node.spec.pass_rate:
        _require(node, columns, given, [node.spec.pass_rate.reference], "pass_rate.reference")
        return _joined(node, columns, given, [node.spec.pass_rate.column])
    added = _made(node)
    if node.spec.votes > 1:
        added += [f"{name}_agreement" for name in node.spec.output.columns]
    return _joined(node, columns, given, added)


def _refine(node: Node, project: Project, columns: Columns) -> Names:
    given = _llm_input(node, project, columns)
    refined = list(node.spec.output.columns)
    _require(node, columns, given, refined, "output")
    added = [f"{name}_before" for name in refined]
    if node.spec.accept:
        place = _place(node, "accept")
        wanted = parse_predicate(node.spec.accept, place).columns
        known = None if given is None else [*given, *added]
        _require(node, columns, known, wanted, "accept")
    if node.spec.output.reasoning:
        added.append(node.spec.output.reasoning)
    return None if given is None else [*(name for name in _carried(node, given) if name not in added), *added]


def _filter(node: Node, project: Project, columns: Columns) -> Names:
    given = columns.of(node.spec.from_)
    for number, rule in enumerate(node.spec.rules):
        key = f"rules.{number}"
        if rule.sql:
            _require(node, columns, given, parse_predicate(rule.sql, _place(node, key)).columns, key)
        if rule.judge:
            _require_prompt(node, project, columns, rule.judge.prompt, given)
            known = None if given is None else [*given, *rule.judge.output.columns]
            _require(node, columns, known, parse_predicate(rule.judge.accept, _place(node, key)).columns, key)
        for part in (rule.dedup, rule.decontaminate):
            if part is not None:
                _require(node, columns, given, part.columns, key)
        for single in (rule.language, rule.quality):
            if single is not None:
                _require(node, columns, given, [single.column], key)
        if rule.dedup and rule.dedup.keep:
            check_order(rule.dedup.keep, _place(node, key))
        if rule.decontaminate:
            for benchmark in rule.decontaminate.against:
                _require_one(node, columns, benchmark, rule.decontaminate.benchmark_columns, key)
    return given


def _mix(node: Node, project: Project, columns: Columns) -> Names:
    inputs = [columns.of(entry.model) for entry in node.spec.from_]
    known = None if any(given is None for given in inputs) else _union(given or () for given in inputs)
    _require(node, columns, known, node.spec.by, "by")
    if node.spec.text:
        read = project.row_template(node.spec.text, _place(node, "text")).columns
        _require(node, columns, known, read, "text")
    weights = node.spec.weights
    if weights is not None and not isinstance(weights, list):
        _require(node, columns, columns.of(weights.from_), [*node.spec.by, weights.column], "weights", weights.from_)
    if known is None:
        return None
    added = (["text"] if node.spec.text else []) + ["split"] + (["tokens"] if node.spec.tokens else [])
    return _union([known, added])


def _train(node: Node, project: Project, columns: Columns) -> Names:
    _require(node, columns, columns.of(node.spec.from_), [node.spec.text], "text")
    return None


def _evaluate(node: Node, project: Project, columns: Columns) -> Names:
    for number, benchmark in enumerate(node.spec.from_):
        wanted = [benchmark.question, benchmark.choices, benchmark.answer]
        _require(node, columns, columns.of(benchmark.model), wanted, f"from.{number}", benchmark.model)
    return None


_KINDS: dict[str, Callable[[Node, Project, Columns], Names]] = {
    "source": _source,
    "sql": _sql,
    "python": _python,
    "synthesize": _synthesize,
    "refine": _refine,
    "annotate": _annotate,
    "filter": _filter,
    "mix": _mix,
    "train": _train,
    "evaluate": _evaluate,
}


def _llm_input(node: Node, project: Project, columns: Columns) -> Names:
    given = columns.of(node.spec.from_)
    if node.spec.where:
        _require(node, columns, given, parse_predicate(node.spec.where, _place(node, "where")).columns, "where")
    if node.spec.carry is not None:
        _require(node, columns, given, node.spec.carry, "carry")
    _require_prompt(node, project, columns, node.spec.prompt, given)
    return given


def _require_prompt(node: Node, project: Project, columns: Columns, prompt: str, given: Names) -> None:
    """A column that a prompt reads and its rows do not have is a mistake in the prompt."""
    if given is None:
        return
    known = [*given, *matrix_columns(getattr(node.spec, "matrix", {}))]
    for name, place in project.prompts[prompt].columns.items():
        if name not in known:
            message = f"the prompt reads `{name}`, which the input of `{node.name}` does not have"
            columns.errors.append(ProjectError(message, where=place, hint=_hint(name, known)))


def _require(
    node: Node, columns: Columns, given: Names, wanted: Iterable[str], key: str, parent: str | None = None
) -> None:
    if given is None:
        return
    known = {name.lower() for name in [*given, *LINEAGE_COLUMNS]}
    for name in wanted:
        if name.lower() not in known:
            of = f"`{parent}`" if parent else f"the input of `{node.name}`"
            message = f"`{key.split('.', maxsplit=1)[0]}` reads `{name}`, which {of} does not have"
            columns.errors.append(ProjectError(message, where=_place(node, key), hint=_hint(name, given)))


def _require_one(node: Node, columns: Columns, benchmark: str, wanted: Sequence[str], key: str) -> None:
    """Benchmarks differ in their columns: one of those asked for is enough."""
    given = columns.of(benchmark)
    if given is not None and not set(wanted) & set(given):
        message = f"`{benchmark}` has none of the `benchmark_columns` {', '.join(wanted)}"
        columns.errors.append(ProjectError(message, where=_place(node, key), hint=_hint(wanted[0], given)))


def _joined(node: Node, columns: Columns, given: Names, added: Sequence[str]) -> Names:
    if given is None:
        return None
    carried = _carried(node, given)
    taken = {name.lower() for name in given}
    for name in added:
        if name.lower() in taken:
            columns.errors.append(
                ProjectError(
                    f"`{node.name}` makes column `{name}`, which its input already has",
                    where=_place(node, f"output.columns.{name}"),
                    hint="give the new column another name; only `refine` replaces columns",
                )
            )
    return [*carried, *added]


def _made(node: Node) -> list[str]:
    output = node.spec.output
    return [*output.columns, *([output.reasoning] if output.reasoning else [])]


def _carried(node: Node, given: Sequence[str]) -> list[str]:
    wanted = None if node.spec.carry is None else {name.lower() for name in node.spec.carry}
    return [name for name in given if wanted is None or name.lower() in wanted]


def _union(parts: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in part))


def _place(node: Node, key: str) -> Where:
    while key not in node.places and "." in key:
        key = key.rpartition(".")[0]
    return node.places.get(key, node.where)


def _hint(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name, known) or f"it has {', '.join(known) or 'no columns'}"
