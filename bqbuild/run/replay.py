"""Replays rows on recorded calls: as far as the log goes, and what is missing where it ends. Nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bqbuild.core.records import CallKey
from bqbuild.nodes.base import Answer, Ask, Made, RowProgram, Task
from bqbuild.plan.bounds import most_input_tokens, most_output_tokens
from bqbuild.run.desk import Desk
from bqbuild.run.rows import RowFilter, RowGroup, reply_to


@dataclass(slots=True)
class Replay:
    """What a replay found. `stalled` counts the tasks that wait for a new call, `rows` what the others made; tokens
    are the most that the new calls can use."""

    tasks: int = 0
    stalled: int = 0
    rows: int = 0
    new: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    elsewhere: set[CallKey] = field(default_factory=set)


def replay(
    program: RowProgram,
    groups: Iterable[RowGroup],
    desk: Desk,
    *,
    where: RowFilter | None = None,
    elsewhere: set[CallKey] | None = None,
    on_made: Callable[[Made], None] = lambda made: None,
) -> Replay:
    """Take every task through its waves of calls until one has a call that the log does not have.

    Calls that are new, but in `elsewhere`, will be made by another node; those found here are added to it.
    """
    found = Replay(elsewhere=set() if elsewhere is None else elsewhere)
    for group in (where.keep(group) if where else group for group in groups):
        opened = [task for tasks in program.tasks(group.rows) for task in tasks]
        found.tasks += len(opened)
        waiting = _started(opened, found, on_made)
        while waiting:
            waiting = _wave(waiting, desk, found, on_made)
    return found


_Waiting = list[tuple[Task, Sequence[Ask]]]


def _started(tasks: Sequence[Task], found: Replay, on_made: Callable[[Made], None]) -> _Waiting:
    return [(task, asks) for task in tasks if (asks := _advance(task, None, found, on_made))]


def _wave(waiting: _Waiting, desk: Desk, found: Replay, on_made: Callable[[Made], None]) -> _Waiting:
    """Answer one wave of every task; those that go on."""
    waves = [[desk.key(ask) for ask in asks] for _, asks in waiting]
    records = desk.look_up([key for wave in waves for key in wave])
    going: _Waiting = []
    for (task, asks), keys in zip(waiting, waves, strict=True):
        for ask, key in zip(asks, keys, strict=True):
            if key in records or key in found.elsewhere:
                found.cached += 1
            else:
                found.elsewhere.add(key)
                found.new += 1
                found.input_tokens += most_input_tokens(ask.request)
                found.output_tokens += most_output_tokens(ask.request.params) or 0
        if all(key in records for key in keys):
            more = _advance(task, reply_to(keys, records), found, on_made)
            going += [(task, more)] if more else []
        else:
            task.steps.close()
            found.stalled += 1
    return going


def _advance(task: Task, answers: list[Answer] | None, found: Replay, on_made: Callable[[Made], None]) -> Sequence[Ask]:
    """The task's next asks; none where it is done."""
    try:
        return next(task.steps) if answers is None else task.steps.send(answers)
    except StopIteration as stop:
        found.rows += len(stop.value.rows)
        on_made(stop.value)
        return ()
