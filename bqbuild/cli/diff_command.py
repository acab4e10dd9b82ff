"""`bqbuild diff`: what differs between two environments, or between two runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from bqbuild.cli.output import print_json, safe, shortened, shortened_pair, value_text
from bqbuild.cli.selection import chosen_nodes, selection_options
from bqbuild.cli.settings import Settings, command

if TYPE_CHECKING:
    from bqbuild.run.difference import ModelChange
    from bqbuild.run.versions import Version

COLUMNS = 6
"""Columns of a sample that are shown; of a changed row, only those that changed."""

STYLES = {"changed": "yellow", "added": "green", "removed": "red", "gone": "red"}


@command("diff")
@click.argument("a")
@click.argument("b")
@selection_options
@click.option("--limit", type=click.IntRange(0), default=3, show_default=True, help="Sample rows of each sort.")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 where anything differs.")
def diff_command(
    settings: Settings,
    a: str,
    b: str,
    selected: Sequence[str],
    exclude: Sequence[str],
    limit: int,
    as_json: bool,
    exit_code: bool,
) -> int:
    """Show rows added, removed and changed per model from A to B.

    A and B are environments (dev, prod), or runs back: @1 is the current environment before its last run that changed
    something, @0 as it is now, dev@2 another's. Sources are compared where they are selected.
    """
    from bqbuild.run.difference import GONE, SAME, compare_versions
    from bqbuild.run.versions import find_version

    with settings.open() as session:
        before, after = find_version(session, a), find_version(session, b)
        is_selected = bool(selected or exclude)
        names = chosen_nodes(settings, session, selected, exclude) if is_selected else None
        changes = list(compare_versions(session, before, after, names, samples=limit))
    if as_json:
        print_json(_document(before, after, changes))
    else:
        for line in _text(before, after, changes):
            click.echo(line, color=settings.color())
    if any(change.status == GONE for change in changes):
        return 1
    return 1 if exit_code and any(change.status != SAME for change in changes) else 0


def _document(before: Version, after: Version, changes: Sequence[ModelChange]) -> dict[str, Any]:
    statuses = [change.status for change in changes]
    return {
        "before": _version(before),
        "after": _version(after),
        "models": [change.json() for change in changes],
        "totals": {status: statuses.count(status) for status in ("same", "changed", "added", "removed", "gone")},
    }


def _version(version: Version) -> dict[str, Any]:
    run = version.run
    return {
        "environment": version.environment,
        "back": version.back,
        "run": run.id if run else None,
        "time": run.time.isoformat() if run else None,
        "command": run.command if run else None,
    }


def _text(before: Version, after: Version, changes: Sequence[ModelChange]) -> Iterator[str]:
    yield f"{_name(before)} → {_name(after)}"
    for change in changes:
        if change.status != "same":
            yield ""
            yield from _model(change)
    same = sum(change.status == "same" for change in changes)
    if same < len(changes):
        yield ""
    tables = "table is" if same == 1 else "tables are"
    yield f"{same} {tables} the same, {len(changes) - same} {'differs' if len(changes) - same == 1 else 'differ'}"


def _name(version: Version) -> str:
    when = f" ({version.run.command}, {version.run.time:%Y-%m-%d %H:%M:%S} UTC)" if version.run else ""
    return f"{version.environment}@{version.back}{when}"


def _model(change: ModelChange) -> Iterator[str]:
    status = click.style(f"{change.status:<8}", fg=STYLES[change.status])
    yield f"{status} {safe(change.name):<24} {click.style(f'{change.kind:<11}', dim=True)} {_figures(change)}"
    for name, kind in change.columns_added.items():
        yield f"         column {safe(name)} {kind} is new"
    for name, kind in change.columns_removed.items():
        yield f"         column {safe(name)} {kind} is gone"
    for name, (old, new) in change.columns_retyped.items():
        yield f"         column {safe(name)} was {old}, is {new}"
    if change.rows is None:
        return
    for old_row, new_row in change.rows.samples.changed:
        yield from _pair(old_row, new_row, change.rows.columns)
    for row in change.rows.samples.removed:
        yield click.style(f"  - {_row(row)}", fg="red")
    for row in change.rows.samples.added:
        yield click.style(f"  + {_row(row)}", fg="green")


def _figures(change: ModelChange) -> str:
    if change.status == "gone":
        return "a table is no longer in the store"
    if change.status in ("added", "removed"):
        return f"{change.rows_after if change.status == 'added' else change.rows_before:,} rows"
    rows = change.rows
    assert rows is not None  # a changed model has been compared
    parts = [
        f"{number:,} {word}"
        for number, word in ((rows.added, "added"), (rows.removed, "removed"), (rows.changed, "changed"))
        if number
    ]
    if rows.columns:
        parts[-1] += f" ({', '.join(f'{safe(name)} {number:,}' for name, number in rows.columns.items())})"
    if not parts:
        parts = ["values are the same; ids, calls or columns differ"]
    by_content = [] if rows.by_id else ["no row id is on both sides: compared by content"]
    return " · ".join([f"{change.rows_before:,} → {change.rows_after:,} rows", *parts, *by_content])


def _pair(old: Mapping[str, Any], new: Mapping[str, Any], columns: Iterable[str]) -> Iterator[str]:
    yield f"  ~ {safe(str(new['_bq_id']))}"
    changed = [name for name in columns if old[name] != new[name]]
    for name in changed[:COLUMNS]:
        before, after = shortened_pair(safe(value_text(old[name])), safe(value_text(new[name])))
        yield f"      {safe(name)}"
        yield click.style(f"      - {before}", fg="red")
        yield click.style(f"      + {after}", fg="green")
    if len(changed) > COLUMNS:
        yield f"      … {len(changed) - COLUMNS} more"


def _row(row: Mapping[str, Any]) -> str:
    names = [name for name in row if name != "_bq_id"]
    shown = [f"{safe(name)}={shortened(safe(value_text(row[name])), 40)}" for name in names[:COLUMNS]]
    more = [f"… {len(names) - COLUMNS} more"] if len(names) > COLUMNS else []
    return "  ".join([safe(str(row["_bq_id"])), *shown, *more])
