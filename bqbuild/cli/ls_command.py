"""`bqbuild ls`: what there is, and what a selection names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bqbuild.cli.output import json_text
from bqbuild.cli.selection import chosen_nodes, selection_options
from bqbuild.cli.settings import Settings, command

if TYPE_CHECKING:
    from bqbuild.core.records import Node


@command("ls")
@selection_options
@click.option("--output", type=click.Choice(["name", "path", "json"]), default="name", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --output json: one object a line.")
def ls_command(settings: Settings, selected: Sequence[str], exclude: Sequence[str], output: str, as_json: bool) -> None:
    """List sources and models, in the order of the graph."""
    output = "json" if as_json else output
    with settings.look() as session:
        nodes = [session.node(name) for name in chosen_nodes(settings, session, selected, exclude)]
    lines = [json_text(_entry(node)) if output == "json" else str(getattr(node, output)) for node in nodes]
    for line in dict.fromkeys(lines) if output == "path" else lines:
        click.echo(line)


def _entry(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "kind": node.kind,
        "path": node.path,
        "tags": list(node.spec.tags),
        "depends_on": list(dict.fromkeys(str(ref.node) for ref in node.refs)),
    }
