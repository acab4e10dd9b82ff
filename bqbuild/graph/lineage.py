"""Column lineage: which columns of its parents each column of a node is made from, and how.

Columns that only decide which rows there are (a WHERE, a filter's rules) are not among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bqbuild.config.project import Project
from bqbuild.core.errors import Where
from bqbuild.core.records import LINEAGE_COLUMNS, Column, Node
from bqbuild.graph.matrix import matrix_columns
from bqbuild.graph.sql.origins import column_origins

ColumnsOf = Callable[[str], Sequence[str] | None]
"""The columns of a node or side table, by `str(ref)`; None where they are not known."""


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """A column of a parent (`str(ref)`) that a column is made from, `via` one of `carried`, `sql`, `prompt`,
    `template`, `code`, `training`, `scoring`."""

    parent: str
    column: str
    via: str


Lineage = Mapping[str, tuple[Origin, ...]]


def column_lineage(node: Node, project: Project, columns_of: ColumnsOf) -> Lineage | None:
    """The origins of each column of `node`, in the order of its columns; None where they cannot be told."""
    columns = columns_of(str(node.name))
    found = _KINDS[node.kind](node, project, columns_of)
    if found is None:
        return None
    names = found.keys() if columns is None else columns
    return {name: tuple(sorted(set(found.get(name, ())))) for name in names if name not in LINEAGE_COLUMNS}


Found = dict[str, Sequence[Origin]]


def _source(node: Node, project: Project, columns_of: ColumnsOf) -> Found | None:
    return {}


def _sql(node: Node, project: Project, columns_of: ColumnsOf) -> Found | None:
    schemas = {str(ref): _typed(columns_of(str(ref))) for ref in node.refs}
    found = column_origins(node.body, Where(node.path), schemas)
    if found is None:
        return None
    spelt = {name.lower(): name for name in columns_of(str(node.name)) or ()}
    return {
        spelt.get(name.lower(), name): [
            Origin(parent, _spelt(columns_of(parent), column), "sql") for parent, column in origins
        ]
        for name, origins in found.items()
    }


def _python(node: Node, project: Project, columns_of: ColumnsOf) -> Found | None:
    """Nobody knows what a function does: each column comes from everything that the function reads."""
    names = columns_of(str(node.name))
    if names is None:
        return None
    read = [
        Origin(parent, column, "code")
        for parent in node.spec.from_
        for column in node.spec.reads or _user(columns_of(parent))
    ]
    return dict.fromkeys(names, read)


def _synthesize(node: Node, project: Project, columns_of: ColumnsOf) -> Found | None:
    return _carried(node, columns_of) | _made(node, project, columns_of)


def _annotate(node: Node, project: Project, columns_of: ColumnsOf) -> Found | None:
    found = _carried(node, columns_of)
    made = _made(node, project, columns_of)
    if node.spec.pass_rate:
        reference = Origin(node.spec.from_, node.spec.pass_rate.reference, "prompt")
        asked = next(iter(made.values()), ())
        return found | {node.spec.pass_rate.column: [*asked, reference]}
    agreements = {f"{name}_agreement": origins for name, origins in made.items()} if node.spec.votes > 1 else {}
    return found | made | agreements


def _refine(node: Node, project: Project, columns_of: ColumnsOf) -> Found | None:
    """A refined column may keep its old value: where `accept` says no, or the reply cannot be used."""
    found = _carried(node, columns_of)
    for name, origins in _made(node, project, columns_of).items():
        old = [Origin(node.spec.from_, name, "carried")] if name in node.spec.output.columns else []
        found[name] = [*origins, *old]
        if old:
            found[f"{name}_before"] = old
    return found


def _filter(node: Node, project: Project, columns_of: ColumnsOf) -> Found | None:
    return _all_of(node.spec.from_, columns_of)


def _mix(node: Node, project: Project, columns_of: ColumnsOf) -> Found | None:
    found: dict[str, list[Origin]] = {}
    for entry in node.spec.from_:
        for name, origins in _all_of(entry.model, columns_of).items():
            found.setdefault(name, []).extend(origins)
    if node.spec.text:
        read = project.row_template(node.spec.text, node.places.get("text", node.where)).columns
        text = [Origin(origin.parent, origin.column, "template") for name in read for origin in found.get(name, ())]
        found["text"] = text
        if node.spec.tokens:
            found["tokens"] = text
    return dict(found)


def _train(node: Node, project: Project, columns_of: ColumnsOf) -> Found | None:
    read = [node.spec.text, *([node.spec.split] if node.spec.split else [])]
    origins = [Origin(node.spec.from_, name, "training") for name in read] + _checkpoints(node, [node.spec.base])
    return dict.fromkeys(columns_of(str(node.name)) or (), origins)


def _evaluate(node: Node, project: Project, columns_of: ColumnsOf) -> Found | None:
    found: Found = {}
    for benchmark in node.spec.from_:
        read = (benchmark.question, benchmark.choices, benchmark.answer)
        scored = [Origin(benchmark.model, name, "scoring") for name in read]
        scored += _checkpoints(node, node.spec.models.values())
        for name in columns_of(str(node.name)) or ():
            own = [Origin(benchmark.model, name, "carried")] if name in node.spec.by else scored
            found[name] = [*found.get(name, ()), *own]
    return found


_KINDS: dict[str, Callable[[Node, Project, ColumnsOf], Found | None]] = {
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


def _carried(node: Node, columns_of: ColumnsOf) -> Found:
    carry = node.spec.carry
    found = _all_of(node.spec.from_, columns_of)
    return {name: origins for name, origins in found.items() if carry is None or name in carry}


def _made(node: Node, project: Project, columns_of: ColumnsOf) -> Found:
    """What replies make is made from every column that the prompt reads."""
    matrix = matrix_columns(getattr(node.spec, "matrix", {}))
    read = [name for name in project.prompts[node.spec.prompt].columns if name not in matrix]
    known = columns_of(node.spec.from_)
    origins = [Origin(node.spec.from_, name, "prompt") for name in read if known is None or name in known]
    output = node.spec.output
    return dict.fromkeys([*output.columns, *([output.reasoning] if output.reasoning else [])], origins)


def _all_of(parent: str, columns_of: ColumnsOf) -> dict[str, Sequence[Origin]]:
    return {name: [Origin(parent, name, "carried")] for name in _user(columns_of(parent))}


def _checkpoints(node: Node, models: Iterable[object]) -> list[Origin]:
    refs = {str(ref) for ref in node.refs}
    return [Origin(name, "checkpoint", "training") for name in models if isinstance(name, str) and name in refs]


def _user(names: Sequence[str] | None) -> list[str]:
    return [name for name in names or () if name not in LINEAGE_COLUMNS]


def _typed(names: Sequence[str] | None) -> list[Column] | None:
    # types do not matter for names
    return None if names is None else [Column(name, "varchar") for name in names]


def _spelt(names: Sequence[str] | None, column: str) -> str:
    """The column as its table spells it; SQL does not mind the case."""
    return next((name for name in names or () if name.lower() == column.lower()), column)
