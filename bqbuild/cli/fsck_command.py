"""`bqbuild fsck`: is everything in the store what was written?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bqbuild.cli.output import print_json, safe
from bqbuild.cli.settings import Settings, command
from bqbuild.core.durations import duration

if TYPE_CHECKING:
    from bqbuild.store.base import Damage


@command("fsck")
@click.option("--repay", is_flag=True, help="Give up calls that cannot be read: the next run may pay for them again.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def fsck_command(settings: Settings, repay: bool, as_json: bool) -> int:
    """Compare every file of the store with its checksum: tables, checkpoints, traces, environments, calls.

    Damaged tables are set aside, so that the next run builds them again from recorded calls. Damaged calls and
    checkpoints are named with what replacing them costs; that is paid by `run --repay` only. Exits with 1 where
    something is damaged.
    """
    found: list[Damage] = []
    with settings.open() as session:
        for damage in session.store.health.check(repay=repay):
            found.append(damage)
            if not as_json:
                _show(settings, damage)
    cost = sum(damage.cost or 0.0 for damage in found)
    if as_json:
        totals = {
            "damaged": len(found),
            "calls": sum(damage.calls or 0 for damage in found),
            "cost": round(cost, 9),
            "seconds": sum(damage.seconds or 0.0 for damage in found),
        }
        print_json({"damaged": [asdict(damage) for damage in found], "totals": totals, "succeeded": not found})
    elif found:
        settings.say(f"{len(found)} damaged: {', '.join(_counted(found))}.")
        settings.say(_what_next(found, repay))
    else:
        settings.say("The store is sound: every file is what was written.")
    return 1 if found else 0


def _show(settings: Settings, damage: Damage) -> None:
    models = f" of {', '.join(f'`{name}`' for name in damage.models)}" if damage.models else ""
    head = click.style(damage.what, fg="red", bold=True)
    click.echo(f"{head}{safe(models)}: {safe(damage.path)}: {safe(damage.problem)}", color=settings.color())
    losses = []
    if damage.calls:
        losses.append(f"{damage.calls:,} {'call' if damage.calls == 1 else 'calls'} lost")
    elif damage.calls is None and damage.what == "calls" and damage.cost is None and "made again" not in damage.action:
        losses.append("nobody knows how many calls are lost")
    if damage.cost:
        losses.append(f"${damage.cost:.6g} to buy again")
    if damage.seconds is not None:
        losses.append(f"{duration(damage.seconds)} of training")
    if losses:
        click.echo(f"  {', '.join(losses)}")
    click.echo(f"  {safe(damage.action)}")


def _counted(found: list[Damage]) -> list[str]:
    kinds = sorted({damage.what for damage in found})
    numbers = {kind: sum(damage.what == kind for damage in found) for kind in kinds}
    names = {"calls": "file of calls", "index": "index of calls"}
    plural = {"calls": "files of calls", "index": "indexes of calls"}
    return [
        f"{count} {names.get(kind, kind) if count == 1 else plural.get(kind, f'{kind}s')}"
        for kind, count in numbers.items()
    ]


def _what_next(found: list[Damage], repay: bool) -> str:
    is_paid = any(damage.seconds is not None or "--repay" in damage.action for damage in found)
    if is_paid and not repay:
        return "Restore what is left in place from a copy, or `bqbuild run --repay` pays for it again."
    return "`bqbuild run` builds what is missing."
