"""What `run` and `build` share: their flags, and a run with its display."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bqbuild.cli.output import print_json
from bqbuild.cli.progress import Display
from bqbuild.cli.selection import chosen_models, sample_option, selection_options
from bqbuild.cli.settings import Settings

if TYPE_CHECKING:
    from bqbuild.run.options import RunOptions

F = TypeVar("F", bound=Callable[..., Any])


def build_options(function: F) -> F:
    """The flags of commands that build what is selected."""
    refresh = click.option("--refresh-calls", is_flag=True, help="Pay again for every call of the selected models.")
    full = click.option("--full-refresh", "-f", is_flag=True, help="Build again; recorded calls are still used.")
    return running_options(refresh(full(function)))


def running_options(function: F) -> F:
    """The flags of all commands that run models."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print run_results.json to stdout."),
        click.option("--threads", type=click.IntRange(1), help="How many free nodes are built at once."),
        click.option("--max-tokens", type=click.IntRange(0), help="Stop before the run uses more tokens."),
        click.option("--max-cost", type=click.FloatRange(0), help="Stop before the run costs more dollars."),
        click.option("--max-calls", type=click.IntRange(0), help="Stop before the run sends more calls."),
        sample_option,
        click.option("--fail-fast", "-x", is_flag=True, help="Stop at the first failure."),
        click.option("--repay", is_flag=True, help="Pay again for calls and trainings that are damaged in the store."),
        selection_options,
    ):
        function = option(function)
    return function


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given; a limit of 0 is one."""
    return {key: value for key, value in options.items() if value is not None and value is not False}


def build_selected(
    settings: Settings,
    name: str,
    *,
    selected: Sequence[str],
    exclude: Sequence[str],
    as_json: bool,
    sample: int | None = None,
    **options: Any,
) -> int:
    """Run what is selected and show it; the exit code."""
    from bqbuild.run.options import RunOptions

    given = RunOptions(**given_options(options))
    with Display(settings) as display:
        document = _build(settings, display, (selected, exclude), given, command=name, sample=sample)
    if as_json:
        print_json(document)
    return 0 if document["succeeded"] else 1


def _build(
    settings: Settings,
    display: Display,
    selection: tuple[Sequence[str], Sequence[str]],
    options: RunOptions,
    *,
    command: str,
    sample: int | None,
) -> dict[str, Any]:
    """Run, if need be: where nothing has changed, the project is not even read."""
    view = settings.outline(sample=sample)
    if view is not None:
        from bqbuild.run.unchanged import run_unchanged

        with view:
            settings.tell_warnings(view)
            names = chosen_models(settings, view, *selection)
            document = run_unchanged(view, names, options, [display.listen], command=command)
        if document is not None:
            return document
        settings = replace(settings, quiet=True)  # what there was to warn of is said
    from bqbuild.run.command import run_models

    with settings.open(sample=sample) as session:
        names = chosen_models(settings, session, *selection)
        return run_models(session, names, options, [display.listen], command=command)
