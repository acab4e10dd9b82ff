"""`bqbuild trace`: one record back to its seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from bqbuild.cli.output import print_json, safe, value_text
from bqbuild.cli.selection import sampled_option
from bqbuild.cli.settings import Settings, command

WIDTH = 400
"""Characters of a value that are shown; --full and --json show all."""


@command("trace")
@click.argument("record")
@click.option("--full", is_flag=True, help="Show texts in full.")
@sampled_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def trace_command(settings: Settings, record: str, full: bool, is_sample: bool, as_json: bool) -> None:
    """Follow RECORD, the _bq_id of a row or MODEL:ID, back to its seed's file and line.

    Shows every prompt, reply, LLM and cost on the way.
    """
    from bqbuild.run.tracing import trace

    model, _, row_id = record.rpartition(":")
    with settings.open(sample=0 if is_sample else None) as session:
        found = trace(session, row_id, model or None)
    if as_json:
        print_json(found)
        return
    for line in _story(found, None if full else WIDTH):
        click.echo(line, color=settings.color())


def _story(found: Mapping[str, Any], width: int | None) -> Iterator[str]:
    steps = found["steps"]
    for number, step in enumerate(steps):
        yield f"{click.style(step['model'], bold=True)} {click.style(step['kind'], dim=True)} {step['row']['_bq_id']}"
        below = steps[number + 1]["row"] if number + 1 < len(steps) else (found["source"] or {}).get("row", {})
        for name, value in step["row"].items():
            if not name.startswith("_bq_") and below.get(name, _MISSING) != value:
                yield f"  {name}: {_shown(value, width)}"
        for call in step.get("calls") or ():
            yield from _call(step, call, width)
        yield click.style("  ↑", dim=True)
    yield from _source(found["source"], width)
    costs = [step["cost"] for step in steps if step["cost"] is not None]
    if costs:
        yield click.style(f"{len(costs)} steps with calls, ${sum(costs):.6f} in all", dim=True)


_MISSING = object()


def _call(step: Mapping[str, Any], call: Mapping[str, Any], width: int | None) -> Iterator[str]:
    llm, tokens = call["llm"], call["tokens"]
    spent = f"{tokens['input']:,} → {tokens['output']:,} tokens, ${call['cost']:.6f}, {call['seconds']:.1f} s"
    name = click.style(f"prompt {step['prompt']} → {llm['connection']} ({llm['model']})", fg="cyan")
    yield f"  {name} {click.style(spent, dim=True)}"
    for message in call["messages"]:
        yield f"    {message['role']}: {_shown(message['content'], width)}"
    if call["reasoning"]:
        yield f"    reasoning: {_shown(call['reasoning'], width)}"
    yield f"    {click.style('reply', fg='green')}: {_shown(call['response'], width)}"


def _source(source: Mapping[str, Any] | None, width: int | None) -> Iterator[str]:
    if source is None:
        yield click.style("its seed is not found: a model on the way is no longer built as it was", fg="yellow")
        return
    place = f"{source['file']}:{source['line']}" if source["file"] else "its files no longer have it"
    yield f"{click.style(source['name'], bold=True)} {click.style('source', dim=True)} {place}"
    for name, value in source["row"].items():
        yield f"  {name}: {_shown(value, width)}"


def _shown(value: Any, width: int | None) -> str:
    text = safe(value_text(value))
    if width is not None and len(text) > width:
        text = f"{text[:width]}… ({len(text):,} characters)"
    return text.replace("\n", "\n      ")
