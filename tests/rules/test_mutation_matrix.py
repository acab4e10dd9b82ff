"""The mutation matrix, in short: every change of a definition and of the data, three at a time.

`python tests/benchmarks/mutation_matrix.py` goes through all pairs, one after the other and both at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from tests.llm_server import LlmServer
from tests.mutations import DATA, DEFINITION, NOTHING, Subject, answer, first_build
from tests.space import Space


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """The project, built once; to be copied."""
    with LlmServer(answer) as server:
        yield first_build(tmp_path_factory.mktemp("matrix") / "base", server)


@pytest.fixture
def clean(tmp_path: Path) -> Iterator[Space]:
    """Where clean builds are made, with a server of their own."""
    with LlmServer(answer) as server:
        yield Space(tmp_path / "clean", server)


HALF = (len(DEFINITION) + 1) // 2
PAIRS = list(zip(list(DEFINITION)[:HALF], [*list(DEFINITION)[HALF:], *DEFINITION], cycle(DATA), strict=False))


@pytest.mark.parametrize(("one", "other", "data"), PAIRS)
def test_a_change_of_data_and_definition_sends_what_is_new_and_leaves_nothing_stale(
    base: Subject, clean: Space, tmp_path: Path, one: str, other: str, data: str
) -> None:
    subject = base.copy(tmp_path / "edited")
    outcome = subject.step(DATA[data], DEFINITION[one], DEFINITION[other], clean=clean)
    assert outcome.is_perfect, outcome


def test_the_judge_of_the_matrix_sees_what_is_not_as_it_should_be(base: Subject, clean: Space, tmp_path: Path) -> None:
    subject = base.copy(tmp_path / "edited")
    DEFINITION["prompt"].apply(subject.space)
    subject.answered.clear()  # as if the 24 questions and labels that it reuses had never been answered
    outcome = subject.step(NOTHING, clean=clean)
    assert (outcome.sent, outcome.ideal) == (24, 48)
    assert outcome.wasted == ("answers",)  # it was not said that the edit touches it
    assert not outcome.is_perfect
