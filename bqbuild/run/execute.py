"""Carries out a run: every node as soon as its parents are done, row kinds as chains, all of it recorded.

For each node: wait for parents ─ decide ─┬─ cached: reuse
                                          └─ build under a lease ─ write tables ─ record the trace
Pointers of the environment move at the end, together; a run that dies leaves traces, which the next one finds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bqbuild.core.errors import BqError
from bqbuild.core.events import (
    Event,
    Listener,
    NodeResult,
    RunFinished,
    RunStarted,
    Warned,
)
from bqbuild.core.records import Node, NodeName
from bqbuild.llm.base import Batching
from bqbuild.llm.client import Client
from bqbuild.nodes import HEAVY_KINDS
from bqbuild.plan.rebuild import CACHED, Decision
from bqbuild.run.barriers import Barriers
from bqbuild.run.chain import build_chain
from bqbuild.run.contracts import check_contract
from bqbuild.run.desk import Desk
from bqbuild.run.healing import Healing
from bqbuild.run.interrupt import stopping
from bqbuild.run.ledger import Ending, Ledger
from bqbuild.run.links import begins_chain, chain_from
from bqbuild.run.options import RunOptions
from bqbuild.run.paid import connections_of, is_paid
from bqbuild.run.purse import Purse
from bqbuild.run.renewal import Renewal, finish_renewal, renewing
from bqbuild.run.scope import nodes_to_build, stale_parents
from bqbuild.run.session import Session
from bqbuild.run.state import State
from bqbuild.run.testing import tests_of
from bqbuild.run.turns import Turns
from bqbuild.run.whole import build_table

OPEN_CHAINS = 64
"""Chains of row kinds at work at a time; each holds a bounded number of rows."""

SPARE_THREADS = 32
"""Threads for what is not building: decisions, tests, files of batches."""

INTERRUPT_SECONDS = 5.0
"""How long Ctrl-C waits for calls to be let go."""


class Run:
    """One run at work."""

    def __init__(self, session: Session, state: State, names: Sequence[NodeName], options: RunOptions, emit: Listener):
        llms = session.project.target.llms
        self.session = session
        self.state = state
        self.names = names
        self.options = options
        renewal = state.renewal
        self.client = Client(
            llms,
            session.store.calls,
            warn=lambda message: emit(Warned(message)),
            epoch=renewal.number if renewal else 0,
            report=emit,
            batching=Batching(session.store.batches, emit, since=renewal.since if renewal else 0, repay=options.repay),
        )
        purse = Purse(options.max_calls, options.max_cost, options.max_tokens)
        log = session.store.calls
        desk = Desk(self.client, log, lambda name: llms[name], renewal, repay=options.repay, purse=purse)
        self.ledger = Ledger(session, state, desk, names, emit, is_preparing=not options.publish)
        self.barriers = Barriers(self.ledger, tests_of(session, names) if options.tests else [])
        self.healing = Healing(self.ledger, self._build_alone, repay=options.repay)
        self.threads = asyncio.Semaphore(options.threads)
        self.chains = asyncio.Semaphore(OPEN_CHAINS)
        self.machine = asyncio.Lock()
        self.turns = Turns(session.store.leases, len(names))

    async def execute(self) -> list[NodeResult]:
        """Build everything; returns the results in order. Never raises for a node's failure."""
        try:
            async with asyncio.TaskGroup() as group:
                for name in self.names:
                    group.create_task(self._node(self.session.node(name)))
            await self.barriers.finish()
        finally:
            self.turns.close()
            await self.client.close()
        return [ending.result().result for ending in self.ledger.endings.values()]

    async def _node(self, node: Node) -> None:
        try:
            await self.healing.attempt(lambda: self._attempt(node))
            await self.barriers.test(node)
        except BqError as error:
            self.ledger.fail(node, error)
        except OSError as error:
            self.ledger.fail(
                node, BqError(f"`{node.name}`: {error.strerror or error}", hint="check the disk, then run again")
            )
        finally:
            self.barriers.open(node)

    async def _attempt(self, node: Node) -> None:
        parents = [name for name in self.session.dag.parents[node.name] if name in self.ledger.endings]
        above = [await self.ledger.endings[name] for name in parents]
        if self.ledger.endings[node.name].done():  # a chain that began above has built it
            return
        blocked = self._blocked(node, above) or await self.barriers.blocked(parents)
        if blocked:
            self.ledger.finish(node, "skipped", blocked)
            return
        decision, _ = await asyncio.to_thread(self.ledger.state.decide, node)
        if decision.trace is not None:
            check_contract(node, self.ledger.state.outputs[node.name].tables[""])
            status = "cached" if decision.action == CACHED else "success"
            if self.options.publish:
                self.ledger.adopt(decision.trace)
            self.ledger.finish(node, status, decision.reasons[0].message, self.ledger.state.outputs[node.name])
            return
        if self.options.free_only and is_paid(node):
            self.ledger.finish(node, "skipped", "it is not free")
            return
        self.healing.check(node, decision)
        chain = chain_from(self.ledger, node, self.barriers.names) if begins_chain(node) else [node]
        await self._build(chain, decision)

    def _blocked(self, node: Node, above: Sequence[Ending]) -> str:
        if self.ledger.has_failed and self.options.fail_fast:
            return "the run stopped at the first failure"
        for ending in above:
            if not ending.is_usable:
                return f"`{ending.result.name}` has status {ending.result.status}"
            if ending.result.status == "partial" and node.kind in HEAVY_KINDS:
                return f"`{ending.result.name}` is partial: {node.kind} waits for whole tables"
        return ""

    async def _build_alone(self, node: Node, decision: Decision) -> None:
        await self._build([node], decision)

    async def _build(self, chain: list[Node], decision: Decision) -> None:
        """Build one node, or the chain that begins with it, under leases."""
        node = chain[0]
        recipes = [(member.name, self.session.recipe(member.name)) for member in chain]
        async with self.turns.take(recipes) as waited:
            if waited:
                decision, _ = await asyncio.to_thread(self.ledger.state.decide, node)
                if decision.action == CACHED:
                    self.ledger.finish(
                        node, "cached", "another run has just built it", self.ledger.state.outputs[node.name]
                    )
                    return
            async with self._limit(chain):
                if begins_chain(node):
                    await build_chain(self.ledger, chain, decision)
                else:
                    await build_table(self.ledger, node, decision)

    def _limit(self, chain: Sequence[Node]) -> asyncio.Semaphore | asyncio.Lock:
        """What limits how many of such nodes are built at a time: a chain of calls mostly waits, for servers."""
        if any(self._is_heavy(member) for member in chain):
            return self.machine
        return self.chains if begins_chain(chain[0]) else self.threads

    def _is_heavy(self, node: Node) -> bool:
        llms = self.session.project.target.llms
        return node.kind in HEAVY_KINDS or any(llms[name].provider == "embedded" for name in connections_of(node))


def run(
    session: Session,
    names: Sequence[NodeName],
    options: RunOptions,
    listeners: Sequence[Listener] = (),
    *,
    command: str = "run",
) -> list[NodeResult]:
    """Build `names` and what they need; returns how every node ended, in order. `command` is for the history.

    Raises UsageError where a selection cannot be built, StoreError where the store cannot be used.
    """

    def emit(event: Event) -> None:
        for listener in listeners:
            listener(event)

    began = time.monotonic()
    with renewing(session, names, options.retry, is_refresh=options.refresh_calls) as renewal:
        results = _run(session, names, options, emit, renewal=renewal, command=command)
        if renewal is not None:
            finish_renewal(renewal, results)
    emit(RunFinished(tuple(results), round(time.monotonic() - began, 3)))
    return results


def _run(
    session: Session,
    names: Sequence[NodeName],
    options: RunOptions,
    emit: Listener,
    *,
    renewal: Renewal | None,
    command: str,
) -> list[NodeResult]:
    state = State(session, pointers=session.pointers(), renewal=renewal)
    state.is_forced = frozenset(names) if options.full_refresh else frozenset()
    chosen = nodes_to_build(session, state, names)
    for name, message in stale_parents(session, state, chosen).items():
        emit(Warned(message, name))
    emit(RunStarted(tuple((name, session.node(name).kind) for name in chosen)))
    try:
        return _drive(_execute(session, state, chosen, options, emit))
    finally:
        if options.publish and state.moved:
            _publish(session, state, command)


def _publish(session: Session, state: State, command: str) -> None:
    """Move the environment's pointers, and add the run to its history."""
    if session.store.environments.move(session.environment, state.moved):
        session.store.runs.record(session.environment, command, session.pointers())


async def _execute(
    session: Session, state: State, names: Sequence[NodeName], options: RunOptions, emit: Listener
) -> list[NodeResult]:
    # who builds in a thread may wait there for answers of a judge; those who get the answers need threads as well
    threads = ThreadPoolExecutor(OPEN_CHAINS + options.threads + SPARE_THREADS, thread_name_prefix="build")
    asyncio.get_running_loop().set_default_executor(threads)
    work = Run(session, state, names, options, emit)
    with stopping(work.client, emit):
        return await work.execute()


def _drive(work: Coroutine[Any, Any, list[NodeResult]]) -> list[NodeResult]:
    """Run the loop to the end of `work`. Unlike asyncio.run, Ctrl-C does not wait for what goes on in threads: a
    training that is under way may take hours, and everything that was recorded is safe."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    except KeyboardInterrupt:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=INTERRUPT_SECONDS))
        raise
    finally:
        loop.close()
