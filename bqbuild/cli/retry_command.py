"""`bqbuild retry`: asks again where the last build got no usable answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bqbuild.cli.building import given_options, running_options
from bqbuild.cli.output import print_json
from bqbuild.cli.progress import Display
from bqbuild.cli.selection import chosen_models
from bqbuild.cli.settings import Settings, command


@command("retry")
@running_options
def retry_command(
    settings: Settings,
    selected: Sequence[str],
    exclude: Sequence[str],
    as_json: bool,
    sample: int | None,
    **options: Any,
) -> int:
    """Send again the calls of the last build whose answers could not be used, and those without an answer.

    Nothing else is asked; then what changed below is built. `run` leaves unusable answers as they are.
    """
    from bqbuild.run.artifacts import run_results
    from bqbuild.run.command import run_models
    from bqbuild.run.options import RunOptions
    from bqbuild.run.retrying import find_retry

    with settings.open(sample=sample) as session, Display(settings) as display:
        found = find_retry(session, chosen_models(settings, session, selected, exclude))
        if not found.names:
            settings.say("Nothing to retry: every row of the last build has a usable answer.")
            if as_json:
                print_json(run_results(session, [], command="retry"))
            return 0
        calls, rows = len(found.keys), found.missing
        unusable = "1 call with an unusable answer" if calls == 1 else f"{calls:,} calls with unusable answers"
        missing = "1 row without an answer" if rows == 1 else f"{rows:,} rows without an answer"
        settings.say(f"Asking again: {', '.join([unusable] * bool(calls) + [missing] * bool(rows))}.")
        given = RunOptions(retry=found.keys, **given_options(options))
        document = run_models(session, found.names, given, [display.listen], command="retry")
    if as_json:
        print_json(document)
    return 0 if document["succeeded"] else 1
