"""`bqbuild import-calls`: requests and replies that were paid for elsewhere become calls of this store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bqbuild.cli.output import print_json, safe
from bqbuild.cli.settings import Settings, command
from bqbuild.core.errors import UsageError

SHOWN = 20
"""Refused lines that are listed; --json has all of them."""


@command("import-calls")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--llm", required=True, metavar="CONNECTION", help="The connection that the calls are of.")
@click.option("--params", metavar="YAML", help="Parameters of the lines that name none: '{temperature: 0.7}'.")
@click.option("--replace", is_flag=True, help="Let what is imported count instead of what is recorded already.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def import_calls_command(
    settings: Settings, files: tuple[Path, ...], llm: str, params: str | None, replace: bool, as_json: bool
) -> int:
    """Adopt request/response pairs in FILES (JSON lines) into the call log, so that a run finds them and pays nothing.

    A line is {"request": …, "response": …} in OpenAI's form (the response may be plain text), a chat whose last message
    is the assistant's, or one of a Batch API's input and output, which are joined by custom_id.
    """
    from bqbuild.run.importing import import_calls

    with settings.open() as session:
        done = import_calls(session, files, llm, _params(params), replaces=replace)
    if as_json:
        refused = [{"file": file, "line": line, "reason": reason} for file, line, reason in done.refused]
        counts = {"imported": done.imported, "replaced": done.replaced, "known": done.known}
        print_json({**counts, "refused": refused})
    else:
        for file, line, reason in done.refused[:SHOWN]:
            click.echo(f"{file}:{line}: {safe(reason)}", err=True)
        if len(done.refused) > SHOWN:
            click.echo(f"… and {len(done.refused) - SHOWN} lines more; --json lists them", err=True)
        replaced = f"{done.replaced:,} replaced, " if done.replaced else ""
        calls = "1 call" if done.imported == 1 else f"{done.imported:,} calls"
        lines = "1 line" if len(done.refused) == 1 else f"{len(done.refused):,} lines"
        settings.say(f"{calls} imported, {replaced}{done.known:,} known already, {lines} refused.")
    return 1 if done.refused else 0


def _params(text: str | None) -> Mapping[str, Any]:
    if not text:
        return {}
    from bqbuild.config.yamlfile import parse_yaml

    value = parse_yaml(text, "--params").value
    if not isinstance(value, dict):
        raise UsageError("--params is not a mapping", hint="write --params '{name: value}'")
    return value
