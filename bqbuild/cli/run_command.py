"""`bqbuild run`: build models."""

from __future__ import annotations

from typing import Any

import click

from bqbuild.cli.progress import Display
from bqbuild.cli.settings import chosen_models, global_options, selection_options, settings_of


@click.command("run")
@selection_options
@click.option("--full-refresh", is_flag=True, help="Build the selected models again; recorded calls are still used.")
@click.option("--fail-fast", "-x", is_flag=True, help="Stop at the first failure.")
@click.option("--threads", type=click.IntRange(1), help="How many free nodes are built at once.")
@click.option("--json", "as_json", is_flag=True, help="Print run_results.json to stdout.")
@global_options
@click.pass_context
def run_command(
    ctx: click.Context,
    selected: tuple[str, ...],
    exclude: tuple[str, ...],
    full_refresh: bool,
    fail_fast: bool,
    threads: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Build the selected models, or all: only what really changed."""
    from bqbuild.run.command import run_models
    from bqbuild.run.options import RunOptions

    settings = settings_of(ctx, **given)
    options = RunOptions(full_refresh=full_refresh, fail_fast=fail_fast, **({"threads": threads} if threads else {}))
    with settings.open() as session, Display(settings) as display:
        for message, where in session.project.warnings:
            display.warn(f"{where}: {message}" if where else message)
        names = chosen_models(session, selected, exclude)
        document = run_models(session, names, options, [display.listen], command="run")
    if as_json:
        import json

        click.echo(json.dumps(document, ensure_ascii=False))
    ctx.exit(0 if document["succeeded"] else 1)
