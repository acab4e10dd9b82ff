"""A project under kills: edits, runs that are killed, and one that ends, while a reader looks on all the time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bqbuild.core.errors import BqError
from bqbuild.store.base import Pointer
from bqbuild.store.environments import LocalEnvironments
from bqbuild.store.local import open_local
from tests.rules.killable import Books
from tests.space import Space
from tests.zygote import Child, Zygote

LONGEST = 12
"""Kills of one history."""
EDITS = ("ask", "improve", "notes", "label", "judge", "rules")

Pointers = Mapping[str, Pointer]
Moment = Callable[[Child], None]


@dataclass
class Sweep:
    """A project under kills, and the same undisturbed; each has a server of its own, and both say the same."""

    zygote: Zygote
    space: Space
    calm: Space
    books: Books
    dice: Random
    kills: int = 0
    edits: int = 0

    @property
    def store(self) -> Path:
        return self.space.root / ".bqbuild"

    def start(self, space: Space) -> Child:
        return self.zygote.start(space.root, "run", environment={"LLM_URL": space.server.url})

    def edit(self) -> None:
        """Change something that a run has to build, in both projects."""
        what = EDITS[self.edits % len(EDITS)]
        self.edits += 1
        for space in (self.space, self.calm):
            notes = "project/sources/notes.jsonl"
            if what == "notes":
                added = f'{{"id": {100 + self.edits}, "topic": "new {self.edits}", "text": "a new note"}}\n'
                space.write(notes, space.read(notes) + added)
            elif what == "rules":
                space.edit("models/models.yml", 'accept: "', f"accept: \"verdict <> '{self.edits}' and ")
            else:
                said = space.read(f"prompts/{what}.md").partition(". ")[2]
                space.write(f"prompts/{what}.md", f"user:\nVersion {self.edits + 1}. {said}")

    def history(self) -> None:
        """Kill runs until one ends before its moment, or there were enough; then let one end, and all must be right."""
        before = self.pointers(self.space)
        began = time.monotonic()
        assert self.start(self.calm).wait() == 0
        length = time.monotonic() - began
        after = self.pointers(self.calm)
        with watched(self.store, [before, after]) as problems:
            for _ in range(LONGEST):
                if not self.kill_a_run(length):
                    break
            child = self.start(self.space)
            assert child.wait() == 0, child.said()
        assert not problems
        assert self.pointers(self.space) == after
        self.books.check()

    def kill_a_run(self, length: float) -> bool:
        """Start a run and kill it at some moment; False where it ended before."""
        moment = self.dice.choice(self.moments())(length)
        child = self.start(self.space)
        moment(child)
        child.kill()
        self.books.stop_at = None
        code = child.wait()
        assert code in (0, -9), child.said()
        self.books.excuse(self.store)
        self.kills += code == -9
        return code == -9

    def moments(self) -> Sequence[Callable[[float], Moment]]:
        """How a moment is chosen, given how long an undisturbed run takes."""
        return [self._by_time, self._by_time, self._by_request, self._by_file]

    def _by_time(self, length: float) -> Moment:
        # each run is shorter than the one before it
        seconds = self.dice.uniform(0, length * 0.7)
        return lambda child: child.is_running(seconds) and None

    def _by_request(self, length: float) -> Moment:
        """The n-th request. It and those after it get no answer, and all answers before it must come to be on disk."""
        first = len(self.space.server.requests)
        last = self.books.stop_at = first + self.dice.randint(1, 16)

        def wait(child: Child) -> None:
            while len(self.space.server.requests) < last and child.is_running(0.002):
                pass
            deadline = time.monotonic() + 30
            while self.books.missing(self.store, first, last - 1) and child.is_running(0.02):
                assert time.monotonic() < deadline, "answers that came are not on disk"

        return wait

    def _by_file(self, length: float) -> Moment:
        """The n-th file that appears in the store."""
        number = self.files() + self.dice.randint(1, 30)

        def wait(child: Child) -> None:
            while self.files() < number and child.is_running(0.005):
                pass

        return wait

    def files(self) -> int:
        return sum(len(names) for _, _, names in os.walk(self.store / "v1"))

    def pointers(self, space: Space) -> Pointers:
        with space.session() as session:
            return {str(name): pointer for name, pointer in session.pointers().items()}


@contextmanager
def watched(store: Path, allowed: list[Pointers]) -> Iterator[list[str]]:
    """While the block lasts, look at the environment as a reader does; the problems that were met."""
    problems: list[str] = []
    ended = threading.Event()

    def look() -> None:
        seen: Pointers | None = None
        while not ended.wait(0.02):
            try:
                pointers = _pointers(store)
                if pointers != seen:
                    problems.extend(_look(store, pointers))
                if pointers not in allowed:
                    problems.append(f"the environment is of no run: {pointers}")
                seen = pointers
            except BqError as error:
                problems.append(str(error))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        yield problems
    finally:
        ended.set()
        reader.join()


def _pointers(store: Path) -> Pointers:
    environments = LocalEnvironments(
        store / "v1" / "environments", scratch=store, locks=store, mark=lambda digests: None
    )
    return {str(name): pointer for name, pointer in environments.read("killable/dev").items()}


def _look(store: Path, pointers: Pointers) -> Iterator[str]:
    """What is wrong with the tables of an environment: they must be there, sound, with all their rows."""
    opened = open_local(str(store))
    try:
        for name, pointer in pointers.items():
            for side, digest in pointer.tables.items():
                table = opened.tables.find(digest)
                if table is None or sum(batch.num_rows for batch in opened.tables.batches(table)) != table.rows:
                    yield f"{name} {side} is not whole"
    finally:
        opened.close()
