"""D1 and D2: a run is killed at a hundred moments; what was answered is kept, no reader sees half of anything.

A history starts with an edit and kills run after run, each going on from what the last one left, until one comes to its
end. Moments are spread over the length of a run, over its requests and over the files that appear in the store.

`BQBUILD_KILLS=2000 pytest tests/rules/test_kill_sweep.py` goes on for long, with other moments each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.llm_server import LlmServer
from tests.rules.killable import Books, say, write_project
from tests.rules.sweep import Sweep
from tests.space import Space
from tests.zygote import Zygote

KILLS = int(os.environ.get("BQBUILD_KILLS", "100"))


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Forks runs."""
    with Zygote(tmp_path_factory.mktemp("zygote")) as started:
        yield started


def test_after_every_kill_the_next_run_goes_on_from_what_was_answered(tmp_path: Path, zygote: Zygote) -> None:
    seed = 0 if KILLS == 100 else None
    with LlmServer(say) as server, LlmServer(say) as other:
        server.delay = 0.004
        spaces = Space(tmp_path / "killed", server), Space(tmp_path / "calm", other)
        for space in spaces:
            write_project(space, notes=5)
        sweep = Sweep(zygote, *spaces, Books(server), Random(seed))
        while sweep.kills < KILLS:
            sweep.history()
            sweep.edit()
    assert sweep.kills >= KILLS
