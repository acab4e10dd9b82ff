"""D5: garbage collection never deletes what an environment, a lock or a running build can reach; it shows first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bqbuild.core.errors import StoreError
from bqbuild.run.options import RunOptions
from bqbuild.run.pinning import change_pins
from bqbuild.store.base import DamagedError, Garbage, Pile
from bqbuild.store.callgarbage import CallGarbage
from bqbuild.store.garbage import LocalGarbage
from tests.llm_server import Fault
from tests.space import Space, statuses

LABEL = "prompts/label.md"


def v1(space: Space) -> Path:
    return space.root / ".bqbuild" / "v1"


def gc(space: Space, *, delete: bool = False, calls: bool = False, keep_runs: int = 0) -> Garbage:
    with space.session() as session:
        return session.store.garbage.collect(keep_runs=keep_runs, delete=delete, calls=calls)


def dropped(garbage: Garbage) -> dict[str, int]:
    return {pile.sort: pile.count for pile in garbage.drop if pile.count}


def things(space: Space) -> set[str]:
    """All tables, traces and runs of the store."""
    found = [*(v1(space) / "tables").glob("*/*"), *(v1(space) / "traces").rglob("*"), *(v1(space) / "runs").rglob("*")]
    return {str(path) for path in found}


def fsck(space: Space) -> list[object]:
    with space.session() as session:
        return list(session.store.health.check())


@pytest.fixture
def changed(built: Space) -> Space:
    """Built, then with two other prompts: labels and what is kept of them exist three times."""
    for before, after in (("How difficult", "How hard"), ("How hard", "How tricky")):
        built.edit(LABEL, before, after)
        built.run()
        assert built.sent == 8
    return built


def test_d5_gc_shows_and_deletes_nothing(changed: Space) -> None:
    before = things(changed)
    garbage = gc(changed)
    assert dropped(garbage)["traces"] == 4
    assert dropped(garbage)["runs"] == 3
    assert all(pile.bytes for pile in garbage.drop if pile.count)
    assert things(changed) == before


def test_d5_what_goes_is_gone_and_a_run_has_nothing_to_do(changed: Space) -> None:
    digests, traces = changed.digests(), len(list((v1(changed) / "traces").glob("*/*.json")))
    shown = dropped(gc(changed))
    assert dropped(gc(changed, delete=True)) == shown
    assert len(list((v1(changed) / "traces").glob("*/*.json"))) == traces - 4
    assert dropped(gc(changed)) == {}
    assert not list((v1(changed) / "trash").iterdir())
    assert set(statuses(changed.run()).values()) == {"cached"}
    assert changed.sent == 0
    assert changed.digests() == digests
    assert fsck(changed) == []


def test_d5_what_is_gone_is_built_again_from_calls_that_stay(changed: Space) -> None:
    gc(changed, delete=True)
    changed.edit(LABEL, "How tricky", "How difficult")
    results = changed.run()
    assert results["labelled"].status == "success"
    assert changed.sent == 0


@pytest.mark.parametrize(("runs", "lost"), [(0, 4), (1, 4), (2, 2), (3, 0), (10, 0)])
def test_d5_the_last_runs_are_kept(changed: Space, runs: int, lost: int) -> None:
    garbage = gc(changed, delete=True, keep_runs=runs)
    assert dropped(garbage).get("traces", 0) == lost
    assert len(list((v1(changed) / "runs").rglob("*.json"))) == min(runs, 3)


def test_d5_other_environments_are_kept(changed: Space) -> None:
    text = changed.read("project/profiles.yml")
    changed.write("project/profiles.yml", text.replace("\n  dev:", "\n  dev:\n    environment: other"))
    changed.run()
    changed.write("project/profiles.yml", text)
    changed.edit(LABEL, "How tricky", "How odd")
    changed.run()
    gc(changed, delete=True)
    changed.write("project/profiles.yml", text.replace("\n  dev:", "\n  dev:\n    environment: other"))
    changed.edit(LABEL, "How odd", "How tricky")
    assert set(statuses(changed.run()).values()) == {"cached"}
    assert fsck(changed) == []


@pytest.mark.parametrize("name", ["dev", "capitals/dev", "labelled"])
def test_d5_pins_are_kept(built: Space, name: str) -> None:
    before = built.digests()
    with built.session() as session:
        change_pins(session, [name], [])
    built.edit(LABEL, "How difficult", "How hard")
    built.run()
    gc(built, delete=True)
    labelled = before["labelled"]
    assert (v1(built) / "tables" / labelled[:2] / labelled).is_dir()
    built.edit(LABEL, "How hard", "How difficult")
    assert built.run()["labelled"].status == "cached"
    built.edit(LABEL, "How difficult", "How hard")
    built.run()
    with built.session() as session:
        change_pins(session, [], [name])
    gc(built, delete=True)
    assert not (v1(built) / "tables" / labelled[:2] / labelled).exists()


def test_d5_calls_go_only_when_asked_for_and_are_weighed(changed: Space) -> None:
    garbage = gc(changed, delete=True)
    assert garbage.calls is None
    assert garbage.calls_kept.count == 24 + 16
    shown = gc(changed, calls=True).calls
    assert shown is not None
    assert shown.count == 16
    assert 0 < shown.cost < garbage.calls_kept.cost
    assert gc(changed, calls=True, delete=True).calls == shown
    left = gc(changed, calls=True)
    assert left.calls is not None
    assert left.calls.count == 0
    assert left.calls_kept.count == 24
    assert left.calls_kept.cost == pytest.approx(garbage.calls_kept.cost - shown.cost)
    assert fsck(changed) == []
    changed.run(options=RunOptions(full_refresh=True))
    assert changed.sent == 0
    changed.edit(LABEL, "How tricky", "How difficult")
    changed.run()
    assert changed.sent == 8


@dataclass(frozen=True)
class _Slow(CallGarbage):
    """Between the look at calls and their removal there is time for something else."""

    meanwhile: Callable[[], object] = list

    def survey(self, used: Collection[bytes], since: float) -> Pile:
        found = super().survey(used, since)
        self.meanwhile()
        return found


def test_d5_calls_that_a_run_takes_up_meanwhile_are_kept(changed: Space) -> None:
    def go_back() -> None:
        changed.edit(LABEL, "How tricky", "How difficult")
        changed.run()
        assert changed.sent == 0

    with changed.session() as session:
        garbage = session.store.garbage
        assert isinstance(garbage, LocalGarbage)
        slow = _Slow(garbage.calls.folder, garbage.calls.scratch, go_back)
        replace(garbage, calls=slow).collect(keep_runs=0, delete=True, calls=True)
    changed.run(options=RunOptions(full_refresh=True))
    assert changed.sent == 0


def test_d5_calls_stay_while_others_use_the_store(changed: Space) -> None:
    with changed.session() as other:
        assert other.store.scratch.is_dir()
        with pytest.raises(StoreError, match="only while no other process uses the store"):
            gc(changed, delete=True, calls=True)
    assert gc(changed).calls_kept.count == 24 + 16


def test_d5_calls_that_made_no_row_are_kept_with_their_build(capitals: Space) -> None:
    capitals.server.answer = lambda body: "no JSON at all"
    capitals.run("clean_notes", "questions")
    capitals.run("clean_notes", "questions")
    garbage = gc(capitals, calls=True)
    assert garbage.calls is not None
    assert garbage.calls.count == 0
    assert garbage.calls_kept.count > 0


def test_d5_answers_of_a_run_that_was_killed_are_kept(built: Space) -> None:
    built.edit(LABEL, "How difficult", "How hard")
    built.server.fault = lambda body, number: Fault(delay=60) if number > 24 + 3 else None
    killed = subprocess.Popen(
        [sys.executable, "-m", "bqbuild.cli.main", "run"],
        cwd=built.root,
        env={**os.environ, "LLM_URL": built.server.url},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(built.server.requests) <= 24 + 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(1.0)  # longer than a group commit takes, so that what was answered is durable
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    built.server.fault = lambda body, number: None
    gc(built, delete=True, calls=True)
    gc(built, delete=True, calls=True)
    built.run()
    assert built.sent == 5


HOLD = """
import sys
from pathlib import Path
from bqbuild.run.session import open_session
with open_session(Path(sys.argv[1])) as session:
    pointers = session.pointers()
    print("read", flush=True)
    sys.stdin.readline()
    tables = [session.store.tables.find(d) for pointer in pointers.values() for d in pointer.tables.values()]
    rows = sum(batch.num_rows for table in tables for batch in session.store.tables.batches(table))
    print(rows, all(session.store.traces.find([pointer.trace]) for pointer in pointers.values()), flush=True)
"""


def test_d5_what_a_living_process_has_looked_up_is_kept_until_it_ends(built: Space) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(built.root)],
        env={**os.environ, "LLM_URL": built.server.url, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "read\n"
    built.edit(LABEL, "How difficult", "How hard")
    built.run()
    assert "traces" not in dropped(gc(built, delete=True))
    out, _ = holder.communicate("\n", timeout=60)
    rows, are_there = out.split()
    assert int(rows) > 30
    assert are_there == "True"
    assert dropped(gc(built, delete=True))["traces"] == 2


def test_d5_gc_during_a_run_takes_nothing_of_it(changed: Space) -> None:
    changed.edit(LABEL, "How tricky", "How difficult")
    changed.edit("project/profiles.yml", "max_concurrency: 64", "max_concurrency: 1")
    changed.edit("prompts/improve.md", "Improve", "Please improve")
    changed.server.delay = 0.2
    run = subprocess.Popen(
        [sys.executable, "-m", "bqbuild.cli.main", "run"],
        cwd=changed.root,
        env={**os.environ, "LLM_URL": changed.server.url},
        stderr=subprocess.DEVNULL,
    )
    while run.poll() is None:
        gc(changed, delete=True)
    assert run.returncode == 0
    changed.server.delay = 0.0
    assert fsck(changed) == []
    assert set(statuses(changed.run()).values()) == {"cached"}


def test_d5_a_gc_that_was_killed_leaves_a_sound_store(changed: Space) -> None:
    trash = v1(changed) / "trash" / "0123"
    trash.mkdir(parents=True)
    victims = sorted((v1(changed) / "traces").glob("*/*.json"))
    with changed.session() as session:
        reached = {pointer.trace for pointer in session.pointers().values()}
    for path in victims:
        if path.stem not in reached:
            path.rename(trash / path.name)
            break
    assert fsck(changed) == []
    assert set(statuses(changed.run()).values()) == {"cached"}
    assert dropped(gc(changed, delete=True))["leftovers"] == 1
    assert not list((v1(changed) / "trash").iterdir())


@pytest.mark.parametrize("file", ["environments/capitals/dev.json", "pins.json"])
def test_d5_nothing_goes_while_a_root_cannot_be_read(changed: Space, file: str) -> None:
    with changed.session() as session:
        change_pins(session, ["labelled"], [])
    path = v1(changed) / file
    path.write_bytes(path.read_bytes()[:-20])
    before = things(changed)
    with pytest.raises(DamagedError, match="is damaged"):
        gc(changed, delete=True)
    assert things(changed) == before


def test_d5_unfinished_work_is_kept_for_a_week(built: Space) -> None:
    young, old = v1(built) / "scratch" / ("a" * 32), v1(built) / "scratch" / ("b" * 32)
    for folder in (young, old):
        folder.mkdir()
        (folder / "state.pt").write_bytes(b"x" * 1000)
    week = time.time() - 8 * 24 * 3600
    for path in (old / "state.pt", old):
        os.utime(path, (week, week))
    assert dropped(gc(built, delete=True)) == {"runs": 1, "unfinished work": 1}
    assert young.is_dir()
    assert not old.exists()
