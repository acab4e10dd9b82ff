"""`bqbuild test`: data tests over what is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from bqbuild.cli.output import print_json
from bqbuild.cli.progress import Display, sum_up_tests
from bqbuild.cli.selection import chosen_nodes, sampled_option, selection_options
from bqbuild.cli.settings import Settings, command
from bqbuild.core.errors import BqError
from bqbuild.core.events import Tested
from bqbuild.core.records import NodeName

if TYPE_CHECKING:
    from bqbuild.quality.data_tests import DataTest
    from bqbuild.run.session import Session
    from bqbuild.store.base import Pointer


@command("test")
@selection_options
@sampled_option
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def test_command(
    settings: Settings, selected: Sequence[str], exclude: Sequence[str], is_sample: bool, as_json: bool
) -> int:
    """Run the data tests of the selected models, or all. A test fails where its query finds rows.

    A test of a model that is not built counts as failed.
    """
    from bqbuild.run.testing import tests_of

    with settings.open(sample=0 if is_sample else None) as session, Display(settings) as display:
        tests = tests_of(session, chosen_nodes(settings, session, selected, exclude))
        built = session.pointers() if tests else {}
        results = [_run(session, test, built, display) for test in tests]
    statuses = [result["status"] for result in results]
    if as_json:
        print_json({"results": results, "succeeded": not {"fail", "error"} & set(statuses)})
    elif tests:
        settings.say(sum_up_tests(statuses))
    else:
        settings.say("Nothing to do: the selected models have no tests.")
    return 1 if {"fail", "error"} & set(statuses) else 0


def _run(session: Session, test: DataTest, built: Mapping[NodeName, Pointer], display: Display) -> dict[str, Any]:
    """Run one test over the models that it reads; one that cannot run is an `error` and stops no other."""
    from bqbuild.run.testing import run_tests

    known = {name: built[name] for name in map(NodeName, test.reads) if name in built}
    try:
        (result,) = run_tests(session, [test], pointers=known)
    except BqError as error:
        display.fail(str(error))
        return _entry(test, "error", 0, [], str(error))
    display.listen(Tested(test.name, test.node, result.status, result.failures, tuple(result.sample)))
    return _entry(test, result.status, result.failures, list(result.sample), None)


def _entry(test: DataTest, status: str, failures: int, sample: list[Any], error: str | None) -> dict[str, Any]:
    return {
        "name": test.name,
        "model": test.node,
        "status": status,
        "failures": failures,
        "file": test.where.file,
        "line": test.where.line or None,
        "sample": sample,
        "error": error,
    }
