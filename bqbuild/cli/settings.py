"""The global flags, and what every command does with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bqbuild.core.errors import UsageError

if TYPE_CHECKING:
    from bqbuild.run.outline import OutlineView
    from bqbuild.run.session import Session
    from bqbuild.run.view import View


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the project is and how to speak about it."""

    project_dir: str | None = None
    target: str | None = None
    variables: str | None = None
    quiet: bool = False
    no_color: bool = False
    debug: bool = False

    def open(self, *, sample: int | None = None) -> Session:
        """The project, read and checked, in the environment of a sample where one is meant. Warnings go to stderr."""
        from bqbuild.run.outline_cache import open_and_remember

        session = open_and_remember(
            self.root(), target=self.target, variables=self.variables, values=self.values(), sample=sample
        )
        self.tell_warnings(session)
        return session

    def outline(self, *, sample: int | None = None) -> OutlineView | None:
        """What is remembered of the project, where that still counts. Who finds it lacking opens the project."""
        from bqbuild.run.outline_cache import read_outline

        return read_outline(self.root(), target=self.target, variables=self.variables, sample=sample)

    def look(self) -> OutlineView | Session:
        """The project as it is remembered, or else read: for commands that take both. Its warnings go to stderr."""
        view = self.outline()
        if view is None:
            return self.open()
        self.tell_warnings(view)
        return view

    def tell_warnings(self, view: View) -> None:
        """Show the warnings of a project on stderr."""
        for message, where in view.project.warnings:
            self.warn(f"{where}: {message}" if where else message)

    def root(self) -> Path | None:
        """The project that was asked for; None where it is to be found by walking up. Raises UsageError."""
        if self.project_dir is None:
            return None
        folder = Path(self.project_dir).expanduser()
        if not (folder / "project" / "bqbuild.yml").is_file():
            raise UsageError(f"there is no project/bqbuild.yml in {self.project_dir}", hint="run `bqbuild init` there")
        return folder

    def values(self) -> dict[str, Any]:
        """What --vars gives. Raises UsageError, or ProjectError where it is no YAML."""
        if not self.variables:
            return {}
        from bqbuild.config.yamlfile import parse_yaml

        value = parse_yaml(self.variables, "--vars").value
        if not isinstance(value, dict):
            raise UsageError("--vars is not a mapping", hint="write --vars '{name: value}'")
        return value

    def color(self) -> bool | None:
        """False where colour is not wanted; None leaves it to whether somebody is looking at a terminal."""
        return False if self.no_color or os.environ.get("NO_COLOR") else None

    def say(self, text: str) -> None:
        """Tell the user something on stderr that is no error."""
        if not self.quiet:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Show a warning on stderr."""
        if not self.quiet:
            click.echo(click.style("warning: ", fg="yellow") + text, err=True, color=self.color())


def command(name: str) -> Callable[[Callable[..., int | None]], click.Command]:
    """A command that also takes the global flags. Its function is given the Settings first and returns the exit code,
    or None for 0."""

    def wrap(function: Callable[..., int | None]) -> click.Command:
        @click.pass_context
        def callback(ctx: click.Context, /, **given: Any) -> int | None:
            own = {key: given.pop(key) for key in Settings.__dataclass_fields__}
            base = ctx.obj if isinstance(ctx.obj, Settings) else Settings()
            # flags after the command's name win over those before it
            return function(replace(base, **{key: value for key, value in own.items() if value}), **given)

        made = click.command(name, cls=Command)(update_wrapper(callback, function))
        made.params += _global_options()
        return made

    return wrap


class Command(click.Command):
    """Lets `--select a b` name two models, as in dbt: what follows up to the next flag belongs to it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, after putting the models of a selection together."""
        many = {flag for option in self.params if option.name in SELECTIONS for flag in option.opts}
        joined: list[str] = []
        is_open = False
        for argument in args:
            if is_open and not argument.startswith("-"):
                joined[-1] += f" {argument}" if joined[-1] not in many else ""
                if joined[-1] in many:
                    joined.append(argument)
                continue
            is_open = argument in many
            joined.append(argument)
        return super().parse_args(ctx, joined)


SELECTIONS = ("selected", "exclude")


def _global_options() -> list[click.Parameter]:
    return [
        click.Option(["--project-dir"], help="The project's folder."),
        click.Option(["--target", "-t"], help="A target of profiles.yml."),
        click.Option(["--vars", "variables"], help="Variables as YAML: '{min_words: 5}'."),
        click.Option(["--quiet", "-q"], is_flag=True, help="Show errors only."),
        click.Option(["--no-color"], is_flag=True, help="Plain text; NO_COLOR does the same."),
        click.Option(["--debug"], is_flag=True, help="Show tracebacks."),
    ]
