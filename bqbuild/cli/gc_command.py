"""`bqbuild gc`: what nobody needs any more in the store."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from bqbuild.cli.figures import size
from bqbuild.cli.output import print_json, print_table
from bqbuild.cli.settings import Settings, command

if TYPE_CHECKING:
    from bqbuild.store.base import Garbage


@command("gc")
@click.option("--yes", "-y", is_flag=True, help="Delete; without it, only show what would go.")
@click.option("--keep-runs", type=click.IntRange(0), default=10, show_default=True, help="Runs kept per environment.")
@click.option("--calls", is_flag=True, help="Take calls that no kept build used as well. They cost money once.")
@click.option("--pin", "pinned", multiple=True, metavar="NAME", help="Keep an environment, model or table as it is.")
@click.option("--unpin", "unpinned", multiple=True, metavar="NAME", help="Take a pin away.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def gc_command(
    settings: Settings,
    yes: bool,
    keep_runs: int,
    calls: bool,
    pinned: tuple[str, ...],
    unpinned: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show what can go from the store, and delete it with --yes.

    Kept is what environments point to, now and after their last runs, what is pinned, what living processes use, and
    unfinished trainings of the last 7 days. Calls stay unless --calls is given.
    """
    from bqbuild.run.pinning import change_pins

    with settings.open() as session:
        for name in change_pins(session, pinned, unpinned):
            settings.say(f"{'Pinned' if name in session.store.pins.read() else 'Unpinned'} {name}.")
        garbage = session.store.garbage.collect(keep_runs=keep_runs, delete=yes, calls=calls)
    if as_json:
        print_json(_document(garbage, yes))
    else:
        _show(settings, garbage, yes)
    return 0


def _document(garbage: Garbage, deleted: bool) -> dict[str, Any]:
    piles = [*garbage.drop, *([garbage.calls] if garbage.calls else [])]
    return {
        "deleted": deleted,
        "drop": {pile.sort: _figures(pile) for pile in piles},
        "keep": {pile.sort: _figures(pile) for pile in (*garbage.keep, garbage.calls_kept)},
        "totals": {
            "drop": sum(pile.bytes for pile in piles),
            "keep": sum(pile.bytes for pile in (*garbage.keep, garbage.calls_kept)),
            "cost": garbage.calls.cost if garbage.calls else 0.0,
        },
        "pins": list(garbage.pins),
    }


def _figures(pile: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(pile).items() if name != "sort"}


def _show(settings: Settings, garbage: Garbage, deleted: bool) -> None:
    kept = {pile.sort: pile for pile in (*garbage.keep, garbage.calls_kept)}
    dropped = {pile.sort: pile for pile in (*garbage.drop, *([garbage.calls] if garbage.calls else []))}
    gone = "deleted" if deleted else "can go"
    rows = []
    for sort in dict.fromkeys((*dropped, *kept)):
        drop, keep = dropped.get(sort), kept.get(sort)
        if (drop and drop.count) or (keep and keep.count):
            rows.append(
                {
                    "what": sort,
                    gone: f"{drop.count:,}" if drop else "0",
                    "size": size(drop.bytes) if drop and drop.count else "",
                    "worth": f"${drop.cost:.6g}" if drop and drop.cost else "",
                    "kept": f"{keep.count:,}" if keep else "0",
                    "kept size": size(keep.bytes) if keep else "",
                }
            )
    print_table(["what", gone, "size", "worth", "kept", "kept size"], rows, color=settings.color())
    for name in garbage.pins:
        settings.say(f"pinned: {name}")
    total = sum(pile.bytes for pile in dropped.values())
    left = sum(pile.bytes for pile in kept.values())
    if total:
        settings.say(f"{'Deleted' if deleted else 'Would delete'} {size(total)}; {size(left)} stay.")
    else:
        settings.say(f"Nothing can go: all of the {size(left)} is in use.")
    if garbage.calls and garbage.calls.count:
        verb = "cost" if deleted else "would cost"
        calls = "1 call" if garbage.calls.count == 1 else f"{garbage.calls.count:,} calls"
        settings.say(f"The {calls} {verb} ${garbage.calls.cost:.6g} to buy again.")
    if total and not deleted:
        settings.say(f"`bqbuild gc{' --calls' if garbage.calls is not None else ''} --yes` deletes.")
