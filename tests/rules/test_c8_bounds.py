"""C8: what a plan foretells is what the run then does, on random projects and edits: an exact figure comes true, a
bound holds, and to find it out nothing is sent and no pointer moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bqbuild.core.events import NodeResult
from bqbuild.plan.plan import Amount, Plan, Step
from bqbuild.run.options import RunOptions
from tests import mutations
from tests.llm_server import LlmServer
from tests.mutations import DATA, DEFINITION, Edit, Subject, first_build
from tests.rules import worlds
from tests.rules.test_random_histories import CHOICES
from tests.rules.worlds import KINDS, LLM_KINDS, World
from tests.space import Space

PROFILES = worlds.PROFILES.replace(
    "retries: 0", "retries: 0, price: {input: 0.5, output: 2.0}, params: {max_tokens: 50}"
)


def answer(body: Mapping[str, Any]) -> str:
    """The first usable answer: how often a reply must be asked for again is what no plan can know."""
    tries = (worlds.answer(body, number) for number in count())
    return next(said for said in tries if said not in ("", "I cannot say"))


def random_world(dice: Random) -> World:
    """Two sources and six models, of which one at least asks an LLM."""
    world = World()
    for is_keyed in (True, False):
        world.add_source(is_keyed, dice.choices(range(24), k=dice.randint(2, 6)))
    for kind in (*dice.choices(KINDS, k=3), dice.choice(LLM_KINDS), *dice.choices(KINDS, k=2)):
        known = [*world.sources, *world.models]
        world.add_model(kind, dice.sample(known, min(2, len(known))), random_choices(dice))
    return world


def random_choices(dice: Random) -> dict[str, int]:
    """An odd `prompt` asks for every column, so that no reply lacks one."""
    return {name: dice.randint(0, 23) for name in CHOICES} | {"prompt": dice.randrange(1, 24, 2)}


def edit(world: World, dice: Random) -> None:
    """Change some data, or the declaration of a model."""
    source = world.sources[dice.choice(list(world.sources))]
    match dice.randrange(5):
        case 0:
            world.append(dice.choice(list(world.sources)), dice.randrange(24))
        case 1:
            dice.choice(source.rows)["text"] = f"Changed {dice.randrange(9)}."
        case 2 if len(source.rows) > 1:
            source.rows.remove(dice.choice(source.rows))
        case 3:
            world.variable += 1
        case _:
            model = world.models[dice.choice(list(world.models))]
            name = dice.choice([name for name in CHOICES if name != "prompt"])
            model.choices[name] += 1


def write(space: Space, world: World) -> None:
    for name, text in world.files().items():
        space.write(name, text)


@pytest.mark.parametrize("seed", range(8))
def test_c8_a_plan_of_a_random_project_comes_true(tmp_path: Path, seed: int) -> None:
    dice = Random(seed)
    world = random_world(dice)
    with LlmServer(answer) as server:
        space = Space(tmp_path / "world", server)
        space.write("project/profiles.yml", PROFILES)
        for turn in range(4):
            write(space, world)
            check(space, is_fast=turn == 2, is_forced=turn == 3 and seed % 3 == 0)
            edit(world, dice)


EDITS: Mapping[str, Edit] = {**DATA, **DEFINITION}


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A project with models of nearly all kinds that share no call, built once."""
    with LlmServer(mutations.answer) as server:
        subject = first_build(tmp_path_factory.mktemp("subject") / "project", server)
        yield subject


@pytest.mark.parametrize("name", EDITS)
def test_c8_a_plan_of_an_edit_comes_true_model_by_model(tmp_path: Path, subject: Subject, name: str) -> None:
    space = subject.copy(tmp_path / "edited").space
    EDITS[name].apply(space)
    check(space, is_each=True)


def check(space: Space, *, is_fast: bool = False, is_forced: bool = False, is_each: bool = False) -> None:
    """Plan, run, and compare."""
    sent, pointers = len(space.server.requests), space.digests()
    planned = space.plan(fast=is_fast, full_refresh=is_forced)
    assert len(space.server.requests) == sent
    assert space.digests() == pointers
    results = space.run(options=RunOptions(full_refresh=is_forced))
    assert {result.status for result in results.values()} <= {"success", "cached"}, results
    assert [step.name for step in planned.steps] == list(results)
    for step in planned.steps:
        compare(step, results[step.name])
        if is_each:
            compare_sums(Plan("", (step,)), [results[step.name]])
    assert holds(planned.sums()[0], space.sent)
    compare_sums(planned, list(results.values()))


def compare(step: Step, result: NodeResult) -> None:
    """One model: what is done with it, and its rows."""
    told = f"{step.json()} came to {result}"
    allowed = {"build": {"success"}, "cached": {"cached"}, "maybe": {"success", "cached"}}
    assert result.status in allowed[step.action], told
    assert holds(step.rows, result.counts.rows), told
    if step.action == "cached":
        assert (step.new_calls, step.cached_calls, step.cost) == (Amount(0), Amount(0), Amount(0)), told


def compare_sums(planned: Plan, results: list[NodeResult]) -> None:
    """All models together: a call that two of them share is counted once, whichever comes first."""
    counts = [result.counts for result in results]
    new, cached, tokens_in, tokens_out, cost = planned.sums()
    assert holds(new, sum(each.new_calls for each in counts)), planned.totals()
    assert holds(cached, sum(each.cached_calls for each in counts)), planned.totals()
    assert holds(tokens_in, sum(each.input_tokens for each in counts)), planned.totals()
    assert holds(tokens_out, sum(each.output_tokens for each in counts)), planned.totals()
    assert holds(cost, sum(each.cost for each in counts)), planned.totals()


def holds(amount: Amount, value: float) -> bool:
    """Whether a figure came true; one that is not known says nothing."""
    if amount.value is None:
        return True
    return value <= amount.value + 1e-9 if amount.is_bound else value == amount.value
