"""The global flags, and what every command does with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from bqbuild.core.errors import UsageError
from bqbuild.core.records import NodeName

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the project is and how to speak about it."""

    project_dir: str | None = None
    target: str | None = None
    variables: str | None = None
    quiet: bool = False
    no_color: bool = False
    debug: bool = False

    def open(self) -> Any:
        """The project, read and checked: a `Session`."""
        from bqbuild.run.session import open_session

        folder = Path(self.project_dir) if self.project_dir else None
        if folder is not None and not (folder / "project" / "bqbuild.yml").is_file():
            raise UsageError(f"there is no project/bqbuild.yml in {self.project_dir}", hint="run `bqbuild init`")
        return open_session(folder, target=self.target, variables=self._variables())

    def color(self) -> bool | None:
        """Whether text is coloured; None leaves it to whether somebody is looking at a terminal."""
        return False if self.no_color or os.environ.get("NO_COLOR") else None

    def say(self, text: str) -> None:
        """Tell the user something on stderr that is no error."""
        if not self.quiet:
            click.echo(text, err=True)

    def _variables(self) -> dict[str, Any]:
        if not self.variables:
            return {}
        from bqbuild.config.yamlfile import parse_yaml

        value = parse_yaml(self.variables, "--vars").value
        if not isinstance(value, dict):
            raise UsageError("--vars is not a mapping", hint="write --vars '{name: value}'")
        return value


def global_options(command: F) -> F:
    """Let the global flags stand after the command's name as well; there they win."""
    for decorator in (
        click.option("--project-dir", help="The project's folder."),
        click.option("--target", "-t", help="A target of profiles.yml."),
        click.option("--vars", "variables", help="Variables as YAML."),
        click.option("--quiet", "-q", is_flag=True, help="Show errors only."),
        click.option("--no-color", is_flag=True, help="Plain text."),
        click.option("--debug", is_flag=True, help="Show tracebacks."),
    ):
        command = decorator(command)
    return command


def settings_of(ctx: click.Context, **given: Any) -> Settings:
    """The group's flags with the command's own on top."""
    base: Settings = ctx.obj or Settings()
    return replace(base, **{key: value for key, value in given.items() if value})


def selection_options(command: F) -> F:
    """--select and --exclude."""
    command = click.option("--exclude", "-e", multiple=True, help="Leave these out.")(command)
    return click.option(
        "--select", "-s", "--models", "-m", "selected", multiple=True, help="Models: name, +name, tag:x …"
    )(command)


def chosen_models(session: Any, selected: Sequence[str], exclude: Sequence[str]) -> list[NodeName]:
    """The models that a selection names; warnings go to stderr."""
    from bqbuild.graph.select import select

    found = select(session.dag, session.project.nodes, selected, exclude, session.project.selectors)
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    return [name for name in found.names if session.node(name).kind != "source"]
