"""D1 of a training: runs that ask an LLM, filter, query and train are killed, most of them while they train.

A training goes on from its last checkpoint, and its curve and its weights are those of an undisturbed run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.llm_server import LlmServer
from tests.rules.killable import Books, say, write_project
from tests.rules.sweep import Moment, Sweep
from tests.space import Space
from tests.train.tiny import write_model
from tests.zygote import Child, Zygote

KILLS = int(os.environ.get("BQBUILD_TRAINING_KILLS", "12"))
STEPS = 40

TRAIN = f"""
  - name: trained
    kind: train
    from: texts
    base: {{base}}
    split: null
    seq_len: 32
    batch_size: 2
    tokens: {32 * 2 * STEPS}
    learning_rate: 0.01
    checkpoint_every: 2
    threads: 1
"""
TEXTS = "select question || ' ' || answer || ' in ' || level as text from {{ ref('labelled') }}\n"


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Forks runs that train without importing torch."""
    modules = ("bqbuild.nodes.train", "bqbuild.train.loop", "transformers.models.llama.modeling_llama")
    with Zygote(tmp_path_factory.mktemp("zygote"), *modules) as started:
        yield started


@dataclass
class Trainings(Sweep):
    """Kills runs at checkpoints, and now and then before."""

    trained: int = 0
    """Kills that left a training unfinished, with a checkpoint."""
    resumed: int = 0
    """Runs that went on with a training."""

    def moments(self) -> Sequence[Callable[[float], Moment]]:
        return [self._by_checkpoint, self._by_checkpoint, self._by_checkpoint, self._by_time]

    def _by_checkpoint(self, length: float) -> Moment:
        """Some time after the n-th checkpoint."""
        number, more = self.dice.randint(1, 5), self.dice.uniform(0, 0.02)

        def wait(child: Child) -> None:
            seen: set[int] = set()
            while len(seen) < number and child.is_running(0.001):
                seen |= self._checkpoints()
            child.is_running(more)

        return wait

    def kill_a_run(self, length: float) -> bool:
        left = self._checkpoints()
        was_killed = super().kill_a_run(length)
        self.resumed += bool(left) and self._first_step() > 0
        self.trained += was_killed and bool(self._checkpoints())
        return was_killed

    def _checkpoints(self) -> set[int]:
        """When the checkpoints of unfinished trainings were written."""
        found = set()
        for folder, _, files in os.walk(self.store):  # unlike rglob, it does not mind folders that go meanwhile
            if "state.pt" in files:
                with suppress(FileNotFoundError):
                    found.add(os.stat(os.path.join(folder, "state.pt")).st_mtime_ns)
        return found

    def _first_step(self) -> int:
        """The step that the training of the last run began with; 0 where it did not train."""
        logs = sorted((self.store / "dev" / "logs").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
        events = [json.loads(line) for line in logs[-1].read_text("utf-8").splitlines()]
        steps = [event["done"] for event in events if event["event"] == "NodeProgress" and event["name"] == "trained"]
        return int(steps[0]) if steps else 0


def test_a_training_that_is_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path: Path, zygote: Zygote) -> None:
    seed = 0 if KILLS == 12 else None
    base = write_model(tmp_path / "base")
    with LlmServer(say) as server, LlmServer(say) as other:
        spaces = Space(tmp_path / "killed", server), Space(tmp_path / "calm", other)
        for space in spaces:
            write_project(space, notes=3)
            space.write("models/texts.sql", TEXTS)
            space.write("models/train.yml", "models:" + TRAIN.format(base=json.dumps(str(base))))
        sweep = Trainings(zygote, *spaces, Books(server), Random(seed))
        while sweep.kills < KILLS:
            sweep.history()
            sweep.edit()
    assert sweep.trained >= KILLS // 2
    assert sweep.resumed >= KILLS // 4
    curve = "select step, loss from trained order by step"
    assert sweep.space.rows(curve) == sweep.calm.rows(curve)
    assert len(sweep.space.rows(curve)) == STEPS + 1
