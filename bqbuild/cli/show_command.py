"""`bqbuild show`: rows of a model, or of a query over models."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING, Any

import click

from bqbuild.cli.output import print_json, print_table, value_text
from bqbuild.cli.selection import sampled_option
from bqbuild.cli.settings import Settings, command
from bqbuild.core.errors import UsageError

if TYPE_CHECKING:
    from bqbuild.run.rowsets import RowSet


@command("show")
@click.argument("model", required=False)
@click.option("--inline", help="A query over models: \"select * from {{ ref('kept') }}\".")
@click.option("--limit", type=click.IntRange(-1), default=5, show_default=True, help="Rows; -1 for all.")
@click.option("--output", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@sampled_option
@click.option("--json", "as_json", is_flag=True, help="The same as --output json.")
def show_command(
    settings: Settings,
    model: str | None,
    inline: str | None,
    limit: int,
    output: str,
    is_sample: bool,
    as_json: bool,
) -> None:
    """Show rows of MODEL as it was built last, or of one of its side tables (kept__rejects, questions__errors)."""
    if (model is None) == (inline is None):
        raise UsageError("name one model, or give a query with --inline", hint="bqbuild show MODEL")
    from bqbuild.run.rowsets import model_rows, query_rows

    with settings.open(sample=0 if is_sample else None) as session:
        rows = query_rows(session, inline, limit) if inline is not None else model_rows(session, model or "", limit)
    _print(settings, rows, "json" if as_json else output)


def _print(settings: Settings, rows: RowSet, output: str) -> None:
    if output == "json":
        print_json(rows.rows)
    elif output == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(rows.columns)
        writer.writerows([_csv_value(row[name]) for name in rows.columns] for row in rows.rows)
    else:
        print_table(rows.columns, rows.rows, color=settings.color())
        if rows.total is not None and rows.total > len(rows.rows):
            settings.say(f"{len(rows.rows):,} of {rows.total:,} rows; --limit shows more")


def _csv_value(value: Any) -> str:
    return "" if value is None else value_text(value)
