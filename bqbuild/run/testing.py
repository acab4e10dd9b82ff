"""Runs data tests: after a run, or as barriers inside one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from bqbuild.core.errors import BqError, BuildError
from bqbuild.core.records import NodeName
from bqbuild.quality.data_tests import DataTest, TestResult, collect_tests, run_test
from bqbuild.run.session import Session
from bqbuild.run.warehouse import connect
from bqbuild.store.base import Pointer

Heard = Callable[[TestResult], None]


def tests_of(session: Session, names: Iterable[NodeName]) -> list[DataTest]:
    """The tests of these models, and those of project/tests that read one of them. Raises ProjectErrors."""
    chosen = set(names)
    return [
        test
        for test in collect_tests(session.project)
        if test.node in chosen or (test.node is None and chosen & {NodeName(name) for name in test.reads})
    ]


def run_tests(
    session: Session,
    tests: Sequence[DataTest],
    heard: Heard = lambda result: None,
    pointers: Mapping[NodeName, Pointer] | None = None,
) -> list[TestResult]:
    """Run tests over the environment's models, or over those that `pointers` name; each result is `heard` as it comes.

    Raises BuildError for a test over models that are not built.
    """
    known = session.pointers() if pointers is None else pointers
    results = []
    with connect(session, known) as connection:
        for test in tests:
            result = _run(session, connection, test, known)
            heard(result)
            results.append(result)
    return results


def _run(session: Session, connection: object, test: DataTest, known: Mapping[NodeName, Pointer]) -> TestResult:
    missing = [name for name in test.reads if _base(session, name) not in known]
    if missing:
        raise BuildError(
            f"test `{test.name}` reads `{missing[0]}`, which is not built in `{session.environment}`",
            where=test.where,
            hint=f"bqbuild run --select {missing[0]}",
        )
    try:
        return run_test(connection, test)  # type: ignore[arg-type]  # quality does not import duckdb
    except BqError as error:
        raise BuildError(f"test `{test.name}` cannot run: {error.message}", where=test.where) from error


def _base(session: Session, name: str) -> NodeName:
    return NodeName(name) if NodeName(name) in session.project.nodes else NodeName(name.rpartition("__")[0])
