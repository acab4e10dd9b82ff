"""`bqbuild compile`: SQL after Jinja, and prompts as they would be sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bqbuild.cli.output import print_json, safe
from bqbuild.cli.selection import chosen_models, named_node, selection_options
from bqbuild.cli.settings import Settings, command

if TYPE_CHECKING:
    from bqbuild.run.compiling import Compiled, Prompt


@command("compile")
@click.argument("models", nargs=-1)
@selection_options
@click.option("--inline", help="Compile this SQL instead: \"select * from {{ ref('kept') }}\".")
@click.option("--limit", type=click.IntRange(1), default=1, show_default=True, help="Prompts of each model.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def compile_command(
    settings: Settings,
    models: Sequence[str],
    selected: Sequence[str],
    exclude: Sequence[str],
    inline: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show the compiled SQL of MODELS and their prompts, rendered for rows that are there.

    Free models that the prompts read are built first; nothing is sent and nothing is published.
    """
    from bqbuild.run.compiling import compile_inline, compile_models

    with settings.open() as session:
        if inline is not None:
            click.echo(compile_inline(session, inline))
            return
        names = [named_node(session, name) for name in models]
        if not names or selected:
            names += [name for name in chosen_models(settings, session, selected, exclude) if name not in names]
        compiled = compile_models(session, names, limit)
    if as_json:
        print_json([asdict(each) for each in compiled])
        return
    for number, each in enumerate(compiled):
        for line in _lines(each, with_name=len(compiled) > 1 or each.sql is None):
            click.echo(line, color=settings.color())
        if number + 1 < len(compiled):
            click.echo()
        if each.note:
            settings.warn(f"{each.name}: {each.note}")


def _lines(compiled: Compiled, *, with_name: bool) -> Iterator[str]:
    if with_name:
        yield click.style(f"-- {compiled.name} ({compiled.kind}, {compiled.path})", dim=True)
    if compiled.sql is not None:
        yield compiled.sql
    for prompt in compiled.prompts:
        yield from _prompt(prompt)


def _prompt(prompt: Prompt) -> Iterator[str]:
    cell = f", {prompt.cell}" if prompt.cell else ""
    yield click.style(f"-- prompt {prompt.prompt} for row {prompt.row}{cell} → {prompt.llm}", dim=True)
    for message in prompt.messages:
        yield click.style(f"{message.role}:", fg="cyan")
        yield safe(message.content)
