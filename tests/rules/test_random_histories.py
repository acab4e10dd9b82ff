"""C7, C5 and D1 on random histories of random projects: after each, the tables are those of a clean build.

A history edits data and declarations, runs parts, meets failing and unusable answers, is killed, and goes back. After
every whole run:

- the tables, side tables included, are those of a clean build that has only the recorded calls, and sends nothing;
- every answer that the server gave is recorded once: nothing that was ever answered is sent again;
- another run has nothing to do;
- the store holds no leftover that a reader could take for a table.

`BQBUILD_HISTORIES=200 pytest tests/rules/test_random_histories.py` goes on for hours, with other histories each time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

import orjson
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from bqbuild.core.errors import UsageError
from bqbuild.core.events import NodeResult
from bqbuild.core.records import NodeName
from tests.llm_server import Fault, LlmServer
from tests.rules import worlds
from tests.rules.worlds import KINDS, LLM_KINDS, World
from tests.space import Space
from tests.zygote import Zygote

DEEP = int(os.environ.get("BQBUILD_HISTORIES", "0"))
CHOICES = (
    *("about", "version", "number", "way", "form", "where", "error", "params", "carry", "columns"),
    *("explode", "matrix", "samples", "accept", "rules", "order", "prompt", "reads"),
)

small = st.integers(0, 23)
seeds = st.integers(0, 2**20)
"""What begins a project or a model: chance spreads better from a seed than from drawn values, which are mostly 0."""


class Answers:
    """The LLM behind the server: answers, faults, and the books of what was answered."""

    def __init__(self) -> None:
        self.server = LlmServer(self._answer)
        self.server.fault = self._fault
        self.given = 0
        self.failing: Callable[[int], int] = lambda mark: 200
        self.kill: Callable[[int], bool] = lambda number: False
        self._times: Counter[bytes] = Counter()

    def _fault(self, body: Mapping[str, Any], number: int) -> Fault | None:
        if self.kill(number):
            return Fault(delay=1e6)
        mark = len(orjson.dumps(body)) + sum(orjson.dumps(body)[-40:])
        status = self.failing(mark)
        return Fault(status=status) if status != 200 else None

    def _answer(self, body: Mapping[str, Any]) -> str:
        key = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        self._times[key] += 1
        self.given += 1
        return worlds.answer(body, self._times[key])


class History(RuleBasedStateMachine):
    """One project and what happens to it."""

    zygote: Zygote

    def __init__(self) -> None:
        super().__init__()
        self.closing = ExitStack()
        self.folder = Path(self.closing.enter_context(tempfile.TemporaryDirectory(prefix="history-")))
        self.answers = Answers()
        self.closing.enter_context(self.answers.server)
        self.space = Space(self.folder / "project", self.answers.server)
        self.space.write("project/profiles.yml", worlds.PROFILES)
        self.world = World()
        self.past: list[World] = []
        self.written: set[str] = set()
        self.builds = 0

    def teardown(self) -> None:
        try:
            if self.world.models:
                self.whole_run()
        finally:
            self.closing.close()

    # what there is to begin with

    @initialize(seed=seeds)
    def begin(self, seed: int) -> None:
        dice = Random(seed)
        for is_keyed in dice.sample([True, False], 2):
            self.world.add_source(is_keyed, dice.choices(range(24), k=dice.randint(2, 6)))
        for kind in (*dice.choices(KINDS, k=3), dice.choice(LLM_KINDS), *dice.choices(KINDS, k=2)):
            self._add(kind, dice)
        self._write()

    # edits

    @rule(
        number=small,
        row=small,
        how=st.sampled_from(["append", "edit", "delete", "reorder", "duplicate", "column"]),
        value=small,
    )
    def edit_data(self, number: int, row: int, how: str, value: int) -> None:
        self._remember()
        key = _pick(list(self.world.sources), number)
        source = self.world.sources[key]
        place = row % len(source.rows)
        if how == "append":
            self.world.append(key, value)
        elif how == "edit":
            name = worlds.PARTS[value % 3]
            source.rows[place][name] = (worlds.TOPICS[value % 5], value % 7, worlds.TEXTS[value % 6])[value % 3]
        elif how == "delete" and len(source.rows) > 1:
            del source.rows[place]
        elif how == "reorder":
            source.rows.reverse()
        elif how == "duplicate":
            again = dict(source.rows[place])
            if source.is_keyed:
                again["id"] = max(one["id"] for one in source.rows) + 1
            source.rows.append(again)
        elif how == "column":
            source.has_extra = not source.has_extra
        self._write()

    @rule(number=small, what=st.sampled_from(CHOICES), value=small)
    def edit_definition(self, number: int, what: str, value: int) -> None:
        self._remember()
        model = self.world.models[_pick(list(self.world.models), number)]
        model.choices[what] = value if what == "way" else value % 7
        self._write()

    @rule(value=st.integers(0, 2))
    def edit_variable(self, value: int) -> None:
        self._remember()
        self.world.variable = value
        self._write()

    @precondition(lambda self: len(self.world.models) < 8)
    @rule(kind=st.sampled_from(KINDS), seed=seeds)
    def add_model(self, kind: str, seed: int) -> None:
        self._remember()
        self._add(kind, Random(seed))
        self._write()

    @precondition(lambda self: len(self.world.models) > 2)
    @rule(number=small)
    def remove_model(self, number: int) -> None:
        self._remember()
        del self.world.models[_pick(self.world.leaves(), number)]
        self._write()

    @rule(number=small)
    def rename_model(self, number: int) -> None:
        self._remember()
        model = self.world.models[_pick(list(self.world.models), number)]
        # and at times back to a name that another table had
        model.name = model.name.removesuffix("_too") if model.name.endswith("_too") else f"{model.name}_too"
        self._write()

    @rule(number=small, parent=small)
    def move_model(self, number: int, parent: int) -> None:
        self._remember()
        key = _pick(list(self.world.models), number)
        self.world.models[key].parents[0] = _pick(self._readable(self.world.models[key].kind, before=key), parent)
        self._write()

    @precondition(lambda self: bool(self.past))
    @rule(steps=st.integers(1, 4))
    def undo(self, steps: int) -> None:
        for _ in range(min(steps, len(self.past))):
            self.world = self.past.pop()
        self._write()

    # runs

    @rule()
    def whole_run(self) -> None:
        self._check(self.space.run())

    @rule(chosen=st.integers(1, 255))
    def part_run(self, chosen: int) -> None:
        self._run_part(chosen)
        self._check_calls()

    @rule(fast=st.booleans())
    def plan(self, fast: bool) -> None:
        already = len(self.answers.server.requests)
        self.space.plan(fast=fast)
        assert len(self.answers.server.requests) == already

    @rule(
        status=st.sampled_from([500, 429, 400]),
        modulo=st.integers(1, 4),
        chosen=st.one_of(st.none(), st.integers(1, 255)),
    )
    def failing_run(self, status: int, modulo: int, chosen: int | None) -> None:
        self.answers.failing = lambda mark: status if mark % modulo == 0 else 200
        try:
            if chosen is None:
                self.space.run()
            else:
                self._run_part(chosen)
        finally:
            self.answers.failing = lambda mark: 200
        self._check_calls()

    @rule(requests=st.integers(1, 12))
    def killed_run(self, requests: int) -> None:
        """A run that is killed when its n-th request has come, all answers before that one being durable."""
        environment = {"LLM_URL": self.answers.server.url}
        first = len(self.answers.server.requests)
        recorded = self._recorded()
        given = self.answers.given
        child = self.zygote.start(self.space.root, "run", environment=environment)
        self.answers.kill = lambda number: number - first >= requests
        try:
            while len(self.answers.server.requests) - first < requests and child.is_running(0.01):
                pass
            deadline = time.monotonic() + 30
            while self._recorded() - recorded < self.answers.given - given and child.is_running(0.01):
                assert time.monotonic() < deadline, "answers that came are not on disk"
            child.kill()
            assert child.wait(60) in (0, -9), child.said()
        finally:
            self.answers.kill = lambda number: False
        self._check_calls()

    # what must hold

    def _run_part(self, chosen: int) -> None:
        names = [model.name for place, model in enumerate(self.world.models.values()) if chosen & 1 << place]
        with suppress(UsageError):  # a parent that costs something was never built: the selection cannot be run
            self.space.run(*names)

    def _check(self, results: dict[str, NodeResult]) -> None:
        assert _bad(results) == {}
        self._check_calls()
        again = self.space.run()
        assert {result.status for result in again.values()} <= {"cached"}
        assert self.space.sent == 0
        self.builds += 1
        clean = self._clean_build()
        assert _bad(clean.run()) == {}
        assert clean.sent == 0
        assert self._digests(self.space) == self._digests(clean)
        self._check_store()
        shutil.rmtree(clean.root)

    def _clean_build(self) -> Space:
        root = self.folder / f"clean-{self.builds}"
        shutil.copytree(self.space.root, root, ignore=shutil.ignore_patterns(".bqbuild"))
        shutil.copytree(self._store / "calls", root / ".bqbuild" / "v1" / "calls")
        return Space(root, self.answers.server)

    def _digests(self, space: Space) -> dict[str, str]:
        """Of the tables of what is declared now: the environment keeps what was removed until it is cleaned."""
        names = {self.world.name(parent) for model in self.world.models.values() for parent in model.parents[:1]}
        names |= {model.name for model in self.world.models.values()}
        with space.session() as session:
            pointers = {name: pointer for name, pointer in session.pointers().items() if name in names}
        return {
            f"{name}:{side}": digest for name, pointer in pointers.items() for side, digest in pointer.tables.items()
        }

    def _check_calls(self) -> None:
        """Every answer given is a record of its own."""
        assert self._recorded() == self.answers.given

    def _recorded(self) -> int:
        return len(set(_recorded_keys(self._store / "calls")))

    def _check_store(self) -> None:
        with self.space.session() as session:
            for name, pointer in session.pointers().items():
                for digest in pointer.tables.values():
                    table = session.store.tables.find(digest)
                    if table is None:
                        assert NodeName(name) not in session.project.nodes
                        continue
                    assert sum(batch.num_rows for batch in session.store.tables.batches(table)) == table.rows
        assert not list((self._store / "scratch").glob("session-*"))
        assert not (self._store / "damaged").exists()

    @property
    def _store(self) -> Path:
        return self.space.root / ".bqbuild" / "v1"

    def _readable(self, kind: str, before: int) -> list[int]:
        """What a model of this kind may read: a mix renders and splits, so that only SQL reads it."""
        mixes = {key for key, model in self.world.models.items() if model.kind == "mix"}
        found = [*self.world.sources, *self.world.models]
        return [key for key in found if key < before and (kind == "sql" or key not in mixes)]

    def _add(self, kind: str, dice: Random) -> None:
        readable = self._readable(kind, before=self.world.count + 1)
        # towards the end, so that there are chains
        parents = [dice.choice(readable[-3:]), dice.choice(readable)]
        drawn = {name: dice.randrange(24 if name == "way" else 7) for name in CHOICES}
        self.world.add_model(kind, parents, drawn | {"version": 0, "about": 0})

    def _remember(self) -> None:
        self.past.append(self.world.copy())

    def _write(self) -> None:
        files = self.world.files()
        for name in self.written - files.keys():
            (self.space.root / name).unlink()
        for name, text in files.items():
            path = self.space.root / name
            if not path.is_file() or path.read_text("utf-8") != text:
                self.space.write(name, text)
        self.written = set(files)


def _bad(results: Mapping[str, NodeResult]) -> dict[str, str]:
    return {name: result.reason for name, result in results.items() if result.status not in ("success", "cached")}


def _pick(items: list[int], number: int) -> int:
    return items[number % len(items)]


def _recorded_keys(calls: Path) -> Iterator[str]:
    """The keys of all recorded calls, as the store's own readers find them."""
    from bqbuild.store.journal import JournalReader, is_sound, line_key
    from bqbuild.store.segments import DATA, Segment

    for path in calls.glob("journal-*.jsonl"):
        journal = JournalReader(path)
        yield from (line_key(line) for line in journal.sound_lines() if is_sound(line))
        journal.close()
    for path in (calls / "segments").glob(f"*{DATA}"):
        segment = Segment(path)
        yield from (line_key(line) for line in segment.sound_lines())
        segment.close()


def test_every_history_ends_in_the_tables_of_a_clean_build(tmp_path: Path) -> None:
    with Zygote(tmp_path) as zygote:
        History.zygote = zygote
        run_state_machine_as_test(
            History,
            settings=settings(
                max_examples=DEEP or 10,
                stateful_step_count=30 if DEEP else 10,
                derandomize=not DEEP,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate,),  # runs take too long for what fails to be made smaller
                print_blob=bool(DEEP),
            ),
        )
