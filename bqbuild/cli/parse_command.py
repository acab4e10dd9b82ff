"""`bqbuild parse`: is the project well formed?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bqbuild.cli.output import print_json
from bqbuild.cli.settings import Settings, command
from bqbuild.core.errors import UsageError

if TYPE_CHECKING:
    from bqbuild.run.outline import OutlineView
    from bqbuild.run.session import Session
    from bqbuild.run.view import View


@command("parse")
@click.argument("sources", nargs=-1)
@click.option("--update-sources", is_flag=True, help="Infer the types of SOURCES (or all) again: project/sources.lock.")
@click.option("--json", "as_json", is_flag=True, help="Print what was read as JSON.")
def parse_command(settings: Settings, sources: Sequence[str], update_sources: bool, as_json: bool) -> None:
    """Read and check the project, and write its manifest.json. All mistakes are told together."""
    if sources and not update_sources:
        raise UsageError(f"`{sources[0]}` does not belong here", hint="SOURCES go with --update-sources")
    changes = _update(settings, sources) if update_sources else []
    from bqbuild.run.artifacts import write_manifest

    with _project(settings) as view:
        write_manifest(view, "parse")
        found = _found(view)
    if as_json:
        print_json(found | {"sources_changed": changes} if update_sources else found)
        return
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(found["kinds"].items()))
    prompts = f"{found['prompts']} prompt{'' if found['prompts'] == 1 else 's'}"
    click.echo(f"{found['project']} ({found['target']}): {kinds or 'no models'}; {prompts}; no mistakes")


def _project(settings: Settings) -> OutlineView | Session:
    """As it is remembered, or else read; the manifest needs the recipes."""
    view = settings.outline()
    if view is None or not view.has_recipes:
        return settings.open()
    settings.tell_warnings(view)
    return view


def _update(settings: Settings, sources: Sequence[str]) -> list[str]:
    """Before the columns of models are checked: an old lock may be what is wrong with them."""
    from bqbuild.run.session import read_project
    from bqbuild.run.source_lock import update_lock

    changes = update_lock(read_project(settings.root(), target=settings.target, variables=settings.values()), sources)
    for change in changes:
        settings.say(str(change))
    settings.say("project/sources.lock is written" if changes else "project/sources.lock is up to date")
    return [str(change) for change in changes]


def _found(session: View) -> dict[str, Any]:
    project = session.project
    return {
        "project": project.name,
        "target": project.target_name,
        "environment": session.environment,
        "kinds": dict(Counter(node.kind for node in project.nodes.values())),
        "prompts": len(project.prompts),
        "warnings": [
            {"message": message, "file": where.file if where else None, "line": where.line if where else None}
            for message, where in project.warnings
        ],
    }
