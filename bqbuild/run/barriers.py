"""Data tests inside a `build`: a model is tested as soon as it is built, and what is below waits for the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bqbuild.core.events import Tested
from bqbuild.core.records import Node, NodeName
from bqbuild.quality.data_tests import DataTest, TestResult
from bqbuild.run.ledger import Ledger
from bqbuild.run.testing import run_tests


class Barriers:
    """The tests of one run. Without tests every gate is open at once."""

    def __init__(self, ledger: Ledger, tests: Sequence[DataTest]) -> None:
        loop = asyncio.get_running_loop()
        self._ledger = ledger
        self._tests = tests
        self._gates: dict[NodeName, asyncio.Future[str]] = {name: loop.create_future() for name in ledger.endings}
        self.names = frozenset(test.node for test in tests if test.node is not None and test.severity == "error")
        """The models that nothing streams past: they have tests that count as errors."""

    async def test(self, node: Node) -> None:
        """Run the tests of a model that has just ended; nothing to do where it gave no table."""
        tests = [test for test in self._tests if test.node == node.name]
        ending = self._ledger.endings[node.name].result()
        if not tests or not ending.is_usable:
            return
        await self._wait_for(node, tests)
        failed = [result for result in await self._run(tests) if result.status == "fail"]
        if failed:
            self._gates[node.name].set_result(f"`{node.name}` failed its test `{failed[0].test.name}`")

    def open(self, node: Node) -> None:
        """The model has ended and its tests are done."""
        if not self._gates[node.name].done():
            self._gates[node.name].set_result("")

    async def blocked(self, parents: Sequence[NodeName]) -> str:
        """Why what reads `parents` may not be built; empty where it may. Waits for their tests."""
        verdicts = [await self._gates[name] for name in parents]
        return next((verdict for verdict in verdicts if verdict), "")

    async def finish(self) -> None:
        """Run the tests of project/tests, which belong to no single model, over what is there."""
        await self._run([test for test in self._tests if test.node is None and self._is_built(test)])

    def _is_built(self, test: DataTest) -> bool:
        names = self._ledger.session.project.nodes
        reads = [
            NodeName(name) if NodeName(name) in names else NodeName(name.rpartition("__")[0]) for name in test.reads
        ]
        ended = [self._ledger.endings[name].result() for name in reads if name in self._ledger.endings]
        return all(ending.is_usable for ending in ended)

    async def _wait_for(self, node: Node, tests: Sequence[DataTest]) -> None:
        """A test may read other models (`relationships`): those that do not wait for this one are waited for."""
        below = self._ledger.session.dag.descendants(node.name)
        for test in tests:
            for name in map(NodeName, test.reads):
                if name in self._ledger.endings and name not in below and name != node.name:
                    await self._ledger.endings[name]

    async def _run(self, tests: Sequence[DataTest]) -> list[TestResult]:
        if not tests:
            return []
        pointers = self._ledger.state.known_pointers()
        results = await asyncio.to_thread(run_tests, self._ledger.session, tests, pointers=pointers)
        for result in results:
            test = result.test
            self._ledger.emit(Tested(test.name, test.node, result.status, result.failures, tuple(result.sample)))
        return results
