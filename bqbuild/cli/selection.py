"""--select and --exclude, and the models that they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bqbuild.cli.settings import Settings
from bqbuild.core.errors import UsageError, did_you_mean
from bqbuild.core.records import NodeName

if TYPE_CHECKING:
    from bqbuild.run.session import Session
    from bqbuild.run.view import View

F = TypeVar("F", bound=Callable[..., Any])


def selection_options(command: F) -> F:
    """--select and --exclude."""
    command = click.option("--exclude", "-e", multiple=True, help="Leave these out.")(command)
    return click.option(
        "--select", "-s", "--models", "-m", "selected", multiple=True, help="Models: name, +name, tag:x, kind:y+ …"
    )(command)


def sample_option(function: F) -> F:
    """--sample N, of commands that build."""
    help_text = "Take N rows of each source; publishes to `<environment>__sample`."
    return click.option("--sample", type=click.IntRange(1), metavar="N", help=help_text)(function)


def sampled_option(function: F) -> F:
    """--sample, of commands that look at what was built."""
    help_text = "Look at `<environment>__sample`, which `run --sample N` built."
    return click.option("--sample", "is_sample", is_flag=True, help=help_text)(function)


def chosen_nodes(
    settings: Settings, session: View, selected: Sequence[str], exclude: Sequence[str]
) -> tuple[NodeName, ...]:
    """The nodes that a selection names, in the order of the graph; warnings go to stderr."""
    from bqbuild.graph.select import select

    found = select(session.dag, session.project.nodes, selected, exclude, session.project.selectors)
    for warning in found.warnings:
        settings.warn(warning)
    return found.names


def chosen_models(settings: Settings, session: View, selected: Sequence[str], exclude: Sequence[str]) -> list[NodeName]:
    """The models among them: sources are built with what reads them."""
    names = chosen_nodes(settings, session, selected, exclude)
    return [name for name in names if session.node(name).kind != "source"]


def named_node(session: Session, name: str) -> NodeName:
    """The node of exactly this name. Raises UsageError where there is none."""
    if NodeName(name) not in session.project.nodes:
        raise UsageError(f"there is no model `{name}`", hint=did_you_mean(name, map(str, session.project.nodes)))
    return NodeName(name)
