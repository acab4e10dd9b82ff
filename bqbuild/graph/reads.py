"""What every node reads of its parents: which columns, and whether row ids count (rule C3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bqbuild.config.project import Project
from bqbuild.core.records import Column, Node, Reads
from bqbuild.graph.matrix import matrix_columns
from bqbuild.graph.predicates import parse_predicate
from bqbuild.graph.sql import KnownSql

Schemas = Mapping[str, Sequence[Column] | None]
"""The columns of each parent by `str(ref)`; None where they are not known yet."""

ALL = Reads(None, ids=True)


def reads_of(node: Node, project: Project, schemas: Schemas) -> dict[str, Reads]:
    """What `node` reads, by `str(ref)` of the parent."""
    return _KINDS[node.kind](node, project, schemas)


def asked_columns(node: Node, project: Project) -> frozenset[str]:
    """The input columns that an LLM node's calls read: its prompt's and its predicate's, without the matrix."""
    columns = set(project.prompts[node.spec.prompt].columns) - set(matrix_columns(getattr(node.spec, "matrix", {})))
    if node.spec.where:
        columns |= parse_predicate(node.spec.where, node.places.get("where", node.where)).columns
    return frozenset(columns)


def _source(node: Node, project: Project, schemas: Schemas) -> dict[str, Reads]:
    return {}


def _sql(node: Node, project: Project, schemas: Schemas) -> dict[str, Reads]:
    read = KnownSql(node, project.findings).reads(schemas)
    # ids always: they, or the roots that come with them, are in every row that SQL makes
    return {str(ref): Reads(read.get(str(ref)), ids=True) for ref in node.refs}


def _python(node: Node, project: Project, schemas: Schemas) -> dict[str, Reads]:
    columns = frozenset(node.spec.reads) if node.spec.reads is not None else None
    return {name: Reads(columns, ids=True) for name in node.spec.from_}


def _llm(node: Node, project: Project, schemas: Schemas) -> dict[str, Reads]:
    if node.spec.carry is None:
        return {node.spec.from_: ALL}
    columns = asked_columns(node, project) | set(node.spec.carry)
    if node.kind == "refine":
        columns |= set(node.spec.output.columns) | _accepting(node)
    if node.kind == "annotate" and node.spec.pass_rate:
        columns |= {node.spec.pass_rate.reference}
    return {node.spec.from_: Reads(frozenset(columns), ids=True)}


def _accepting(node: Node) -> set[str]:
    """The input columns that the `accept` of a refine node names: without those that the node makes."""
    if not node.spec.accept:
        return set()
    made = {f"{name}_before".lower() for name in node.spec.output.columns} | {
        (node.spec.output.reasoning or "").lower()
    }
    named = parse_predicate(node.spec.accept, node.places.get("accept", node.where)).columns
    return {name for name in named if name.lower() not in made}


def _filter(node: Node, project: Project, schemas: Schemas) -> dict[str, Reads]:
    reads: dict[str, Reads] = {}
    for rule in node.spec.rules:
        if rule.decontaminate:
            for name in rule.decontaminate.against:
                reads[name] = _join(reads.get(name), Reads(frozenset(rule.decontaminate.benchmark_columns), ids=False))
    return reads | {node.spec.from_: ALL}


def _mix(node: Node, project: Project, schemas: Schemas) -> dict[str, Reads]:
    reads = {entry.model: ALL for entry in node.spec.from_}
    weights = node.spec.weights
    if weights is not None and not isinstance(weights, list):
        wanted = Reads(frozenset({*node.spec.by, weights.column}), ids=False)
        reads[weights.from_] = _join(reads.get(weights.from_), wanted)
    return reads


def _train(node: Node, project: Project, schemas: Schemas) -> dict[str, Reads]:
    columns = {node.spec.text} | ({node.spec.split} if node.spec.split else set())
    reads = {node.spec.from_: Reads(frozenset(columns), ids=False)}
    return reads | _checkpoints(node)


def _evaluate(node: Node, project: Project, schemas: Schemas) -> dict[str, Reads]:
    reads: dict[str, Reads] = {}
    for benchmark in node.spec.from_:
        columns = {benchmark.question, benchmark.choices, benchmark.answer, *node.spec.by}
        if benchmark.where:
            columns |= parse_predicate(benchmark.where, node.where).columns
        if node.spec.prompt:
            columns |= set(project.prompts[node.spec.prompt].columns)
        reads[benchmark.model] = _join(reads.get(benchmark.model), Reads(frozenset(columns), ids=True))
    return reads | _checkpoints(node)


def _checkpoints(node: Node) -> dict[str, Reads]:
    """A trained model is read as the digest of its weights: one column of the train node's metrics."""
    names = [node.spec.base] if node.kind == "train" else list(node.spec.models.values())
    refs = {str(ref) for ref in node.refs}
    return {name: Reads(frozenset({"checkpoint"}), ids=False) for name in names if name in refs}


def _join(one: Reads | None, other: Reads) -> Reads:
    if one is None:
        return other
    columns = None if one.columns is None or other.columns is None else one.columns | other.columns
    return Reads(columns, one.ids or other.ids)


_KINDS: dict[str, Callable[[Node, Project, Schemas], dict[str, Reads]]] = {
    "source": _source,
    "sql": _sql,
    "python": _python,
    "synthesize": _llm,
    "refine": _llm,
    "annotate": _llm,
    "filter": _filter,
    "mix": _mix,
    "train": _train,
    "evaluate": _evaluate,
}
