"""`bqbuild debug`: is everything in place?"""

from __future__ import annotations

from typing import Any

import click

from bqbuild.cli.output import print_json
from bqbuild.cli.settings import Settings, command


@command("debug")
@click.option("--fetch-model", is_flag=True, help="Get the embedded LLM (100 MB) if it is not here, and do no more.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def debug_command(settings: Settings, fetch_model: bool, as_json: bool) -> int:
    """Check configuration, store and every LLM connection.

    Each LLM is asked for one token, which is not recorded.
    """
    if fetch_model:
        _fetch_model(settings)
        return 0
    checks = _checks(settings, as_json)
    is_well = all(check["ok"] for check in checks)
    if as_json:
        print_json({"checks": checks, "succeeded": is_well})
    return 0 if is_well else 1


def _fetch_model(settings: Settings) -> None:
    from bqbuild.llm.weights import fetch_embedded

    folder = fetch_embedded(settings.say)
    settings.say(f"the embedded model is in {folder}")


def _checks(settings: Settings, as_json: bool) -> list[dict[str, Any]]:
    """Open the project, which raises ProjectErrors where it cannot, and look at what it leads to."""
    from bqbuild.run.checks import Check, check_connections, check_store

    checks: list[dict[str, Any]] = []

    def note(check: Check) -> None:
        checks.append({"name": check.name, "ok": check.is_well, "message": check.message, "hint": check.hint})
        if not as_json:
            mark = click.style("ok  ", fg="green") if check.is_well else click.style("FAIL", fg="red", bold=True)
            click.echo(f"{mark} {check.name}: {check.message}", color=settings.color())
            if check.hint:
                click.echo(f"       hint: {check.hint}")

    with settings.open() as session:
        project = session.project
        models = len(session.models())
        note(
            Check("project", True, f"{project.name} in {project.root}: {models} models, {len(project.prompts)} prompts")
        )
        note(Check("target", True, f"{project.target_name}, environment `{session.environment}`"))
        note(check_store(session))
        for check in check_connections(session):
            note(check)
    return checks
