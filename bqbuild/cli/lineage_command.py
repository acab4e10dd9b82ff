"""`bqbuild lineage`: what models and columns are made from, and what is made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from bqbuild.cli.drawing import dot, mermaid, tree
from bqbuild.cli.output import print_json
from bqbuild.cli.selection import chosen_nodes, named_node, selection_options
from bqbuild.cli.settings import Settings, command
from bqbuild.core.errors import UsageError
from bqbuild.core.records import NodeName

if TYPE_CHECKING:
    from bqbuild.run.session import Session

FORMATS = ("tree", "json", "dot", "mermaid", "openlineage")


@command("lineage")
@click.argument("models", nargs=-1)
@selection_options
@click.option("--column", help="Follow one column of the one MODEL; MODEL.COLUMN does the same.")
@click.option("--down", is_flag=True, help="What is made from it, instead of what it is made from.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="tree", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def lineage_command(
    settings: Settings,
    models: Sequence[str],
    selected: Sequence[str],
    exclude: Sequence[str],
    column: str | None,
    down: bool,
    form: str,
    as_json: bool,
) -> None:
    """Show what MODELS are made from, up to the sources; without MODELS, the whole graph or what is selected."""
    form = "json" if as_json else form
    with settings.open() as session:
        model, column = _column(session, models, column)
        if model is not None:
            _print_column(session, model, column or "", down, form)
            return
        if models:
            reach = session.dag.descendants if down else session.dag.ancestors
            starts = [named_node(session, name) for name in models]
            names = session.dag.sort({name for start in starts for name in (start, *reach(start))})
        else:
            names = chosen_nodes(settings, session, selected, exclude)
        _print_graph(session, names, down, form)


def _column(session: Session, models: Sequence[str], column: str | None) -> tuple[NodeName | None, str | None]:
    """The model and column to follow, if that is asked for."""
    if column is not None:
        if len(models) != 1:
            raise UsageError("--column goes with one model", hint="bqbuild lineage MODEL --column COLUMN")
        return named_node(session, models[0]), column
    if len(models) == 1 and NodeName(models[0]) not in session.project.nodes:
        model, dot_, name = models[0].rpartition(".")
        if dot_ and NodeName(model) in session.project.nodes:
            return NodeName(model), name
    return None, None


def _print_graph(session: Session, names: Sequence[NodeName], down: bool, form: str) -> None:
    if form in ("json", "openlineage"):
        _print_document(session, names, form)
        return
    inside = set(names)
    parents: dict[str, list[str]] = {
        str(name): [str(parent) for parent in session.dag.parents[name] if parent in inside] for name in names
    }
    edges = [(parent, name) for name, above in parents.items() for parent in above]
    if form == "tree":
        _print_tree(edges, list(parents), down, lambda name, _: f"{name} ({session.node(NodeName(name)).kind})")
        return
    labels = {name: f"{name}\n{session.node(NodeName(name)).kind}" for name in parents}
    _print_lines((dot if form == "dot" else mermaid)(labels, edges))


def _print_document(session: Session, names: Sequence[NodeName], form: str) -> None:
    from bqbuild.run.artifacts import write_lineage
    from bqbuild.run.lineage import ColumnGraph, graph_json
    from bqbuild.run.openlineage import job_events

    columns = ColumnGraph(session)
    if form == "openlineage":
        print_json(job_events(session, names, columns))
        return
    graph = graph_json(session, names, columns)
    if len(names) == len(session.dag.order):
        write_lineage(session, graph)
    print_json(graph)


def _print_column(session: Session, model: NodeName, column: str, down: bool, form: str) -> None:
    from bqbuild.run.lineage import ColumnGraph

    graph = ColumnGraph(session)
    found = graph.below(model, column) if down else graph.above(model, column)
    start = f"{model}.{column}"
    if form == "json":
        print_json({"model": model, "column": column, "direction": "down" if down else "up", "edges": found})
        return
    if form == "openlineage":
        raise UsageError("openlineage is of models", hint="leave --column away: the columns are in it")
    via: dict[tuple[str, str], list[str]] = {}
    for edge in found:
        via.setdefault((_name(edge["from"]), _name(edge["to"])), []).append(edge["via"])
    if form != "tree":
        names = dict.fromkeys([start, *(name for edge in via for name in edge)])
        _print_lines((dot if form == "dot" else mermaid)({name: name for name in names}, list(via)))
        return

    def label(name: str, above: str | None) -> str:
        how = via.get((above or "", name) if down else (name, above or ""))
        return f"{name} ({', '.join(how)})" if how else name

    _print_tree(list(via), [start], down, label)


def _name(end: Mapping[str, Any]) -> str:
    return f"{end['model']}.{end['column']}"


def _print_tree(
    edges: Sequence[tuple[str, str]], names: Sequence[str], down: bool, label: Callable[[str, str | None], str]
) -> None:
    """From those that nothing in the picture is made from (or that are made from nothing) inwards."""
    next_to: dict[str, list[str]] = {}
    for origin, made in edges:
        start, end = (origin, made) if down else (made, origin)
        next_to.setdefault(start, []).append(end)
    ends = {end for nexts in next_to.values() for end in nexts}
    roots = [name for name in names if name not in ends]
    _print_lines(tree(roots, lambda name: next_to.get(name, []), label))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)
