"""What a run knows: what every node came to, and what is remembered of earlier builds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bqbuild.core.hashing import Digest
from bqbuild.core.records import Node, NodeName, ReadInput, Recipe, Table, Trace
from bqbuild.graph.build_key import build_key
from bqbuild.plan.rebuild import Decision, Known, decide
from bqbuild.plan.why import Why, explain
from bqbuild.run.freshness import Freshness
from bqbuild.run.inputs import read_inputs
from bqbuild.run.renewal import Renewal
from bqbuild.run.view import View
from bqbuild.store.base import DamagedError, Pointer


@dataclass(frozen=True, slots=True)
class Output:
    """A node's tables by side ("" is the main one), and the trace that made them."""

    trace: Digest
    tables: Mapping[str, Table]

    def pointer(self) -> Pointer:
        """What an environment keeps of it."""
        return Pointer(self.trace, {side: table.digest for side, table in self.tables.items()})


@dataclass(slots=True)
class State:
    """Shared by everything that builds in one run. Reads and decides; writes only traces and pointers."""

    session: View
    is_forced: frozenset[NodeName] = frozenset()
    outputs: dict[NodeName, Output] = field(default_factory=dict)
    pointers: Mapping[NodeName, Pointer] = field(default_factory=dict)
    moved: dict[NodeName, Pointer] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    damage: dict[NodeName, DamagedError] = field(default_factory=dict)
    """What was found to be damaged of trainings."""
    explain_rows: Callable[[Node, str, Trace], str] = field(default=lambda node, name, before: "")
    """What became of the rows of an input since a trace; a plan has the time to look."""
    freshness: Freshness = field(init=False)
    renewal: Renewal | None = None

    def __post_init__(self) -> None:
        self.freshness = Freshness(self.session.store, self.renewal)

    def parents(self, node: Node) -> dict[str, Table] | None:
        """The tables that `node` reads, by `str(ref)`, or None while one of them is not built."""
        found: dict[str, Table] = {}
        for ref in node.refs:
            output = self.output(ref.node)
            if output is None or ref.side not in output.tables:
                return None
            found[str(ref)] = output.tables[ref.side]
        return found

    def output(self, name: NodeName) -> Output | None:
        """What the node came to in this run, or else what the environment points to."""
        if name not in self.outputs and name in self.pointers:
            known = self.find(self.pointers[name])
            if known is not None:
                self.outputs[name] = known
        return self.outputs.get(name)

    def find(self, pointer: Pointer) -> Output | None:
        """The tables of a pointer, where all of them are in the store."""
        tables: dict[str, Table] = {}
        for side, digest in pointer.tables.items():
            table = self.session.store.tables.find(digest)
            if table is None:
                return None
            tables[side] = table
        return Output(pointer.trace, tables)

    def decide(
        self, node: Node, *, unbuilt: Sequence[NodeName] = (), forces: bool = True
    ) -> tuple[Decision, dict[str, ReadInput] | None]:
        """Whether the node must be built, and what it would read. Reuses its tables where it need not. Without
        `forces`, what it would be were it not forced."""
        is_forced = forces and node.name in self.is_forced
        recipe = self.session.recipe(node.name)
        before = self._before(node)
        parents = None if unbuilt else self.parents(node)
        if parents is None:
            waiting = unbuilt or [ref.node for ref in node.refs if self.output(ref.node) is None]
            known = self._explained(node, Known(before=before, asked_again=self.freshness.to_renew(node, None)))
            return decide(node, recipe, None, known, unbuilt=waiting, is_forced=is_forced), None
        inputs = read_inputs(self.session, node, parents)
        key = build_key(recipe, inputs)
        trace = self.session.store.traces.find([key]).get(key) or self._restored(node, recipe, inputs, key)
        output = self.find(Pointer(key, trace.outputs)) if trace is not None else None
        is_whole = output is not None and self._has_folders(node, output)
        asked_again = self.freshness.to_renew(node, trace) or self.freshness.renewed(trace)
        known = self._explained(node, Known(trace, is_whole, before, asked_again))
        decision = decide(node, recipe, inputs, known, key=key, is_forced=is_forced)
        if decision.trace is not None and output is not None:
            self.settle(node.name, output)
        return decision, inputs

    def forget(self, name: NodeName) -> None:
        """What the node came to is damaged: look at the store again."""
        with self.lock:
            self.outputs.pop(name, None)

    def why(self, node: Node, decision: Decision, inputs: Mapping[str, ReadInput] | None) -> Why:
        """A decision of this state, with the node's key taken apart."""
        known = self._explained(node, Known(before=self._before(node)))
        return explain(node, self.session.recipe(node.name), decision, inputs, known)

    def settle(self, name: NodeName, output: Output) -> None:
        """The node has come to this."""
        with self.lock:
            self.outputs[name] = output
            if self.pointers.get(name) != output.pointer():
                self.moved[name] = output.pointer()

    def known_pointers(self) -> dict[NodeName, Pointer]:
        """Where every name points, with what this run has built so far on top."""
        with self.lock:
            return {**self.pointers, **self.moved}

    def _before(self, node: Node) -> Trace | None:
        pointer = self.pointers.get(node.name)
        return self.session.store.traces.find([pointer.trace]).get(pointer.trace) if pointer else None

    def _explained(self, node: Node, known: Known) -> Known:
        """With what can be asked to explain the decision."""
        before = known.before
        if before is None:
            return known
        definitions = self.session.store.definitions
        return replace(
            known,
            parts=lambda: self.session.parts(node.name),
            parts_before=lambda: definitions.find(before.recipe),
            rows=lambda name: self.explain_rows(node, name, before),
        )

    def _has_folders(self, node: Node, output: Output) -> bool:
        """Whether the checkpoints that a train node's table names are still there, and sound."""
        if node.kind != "train":
            return True
        tables = self.session.store.tables
        try:
            digests = {
                value
                for batch in tables.batches(output.tables[""], ["checkpoint"])
                for value in batch.column(0).to_pylist()
                if value
            }
            return all(self.session.store.folders.find(Digest(value)) is not None for value in digests)
        except DamagedError as error:
            self.damage[node.name] = error
            return False

    def _restored(self, node: Node, recipe: Recipe, inputs: Mapping[str, ReadInput], key: Digest) -> Trace | None:
        """The trace of a training, where it is lost and the environment still says what came of it: a damaged record
        of some hundred bytes must not cost a training."""
        pointer = self.pointers.get(node.name)
        if node.kind != "train" or pointer is None or pointer.trace != key:
            return None
        trace = Trace(key, node.name, node.kind, recipe.digest, recipe.components, inputs, pointer.tables)
        self.session.store.traces.put(trace)
        return trace
