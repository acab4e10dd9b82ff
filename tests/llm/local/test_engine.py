"""Continuous batches on a tiny random model."""

from __future__ import annotations

import json
from random import Random

import pytest
import torch

from bqbuild.llm.local import engine as engine_module
from bqbuild.llm.local.choices import label_tree
from bqbuild.llm.local.constrain import Constrainer
from bqbuild.llm.local.engine import Engine, Job, Outcome
from bqbuild.llm.local.model import LocalModel
from bqbuild.llm.local.prompts import PromptEncoder
from bqbuild.llm.local.sampling import Sampling

SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string", "maxLength": 12}, "grade": {"enum": ["low", "high"]}},
    "required": ["question", "grade"],
    "additionalProperties": False,
}


@pytest.fixture
def constrainer(tiny: LocalModel) -> Constrainer:
    return Constrainer(tiny.tokenizer.backend_tokenizer.to_str(), tiny.vocabulary, tiny.ends)


def make_engine(tiny: LocalModel, constrainer: Constrainer, rows: int) -> Engine:
    return Engine(tiny, PromptEncoder(tiny.tokenizer), constrainer, rows)


def run(engine: Engine, jobs: list[Job]) -> list[Outcome]:
    """Run all jobs; their outcomes in the order of the jobs."""
    for job in jobs:
        engine.add(job)
    outcomes: dict[Job, Outcome] = {}
    while engine.busy:
        outcomes |= dict(engine.step())
    return [outcomes[job] for job in jobs]


def prompts(count: int, shared: int) -> list[tuple[int, ...]]:
    random = Random(5)
    start = [random.randrange(3, 200) for _ in range(shared)]
    return [(*start, *(random.randrange(3, 200) for _ in range(random.randrange(1, 40)))) for _ in range(count)]


def jobs(count: int, *, shared: int = 0, **sampling) -> list[Job]:
    settings = Sampling(**{"temperature": 1.0, "max_tokens": 20, **sampling})
    return [Job(prompt, settings, seed) for seed, prompt in enumerate(prompts(count, shared))]


def test_a_reply_does_not_depend_on_the_rows_that_share_its_batch(tiny: LocalModel, constrainer: Constrainer):
    alone = [run(make_engine(tiny, constrainer, 1), [job])[0] for job in jobs(12)]
    assert run(make_engine(tiny, constrainer, 5), jobs(12)) == alone
    assert run(make_engine(tiny, constrainer, 16), jobs(12)[::-1])[::-1] == alone


def test_a_shared_prefix_changes_no_reply(tiny: LocalModel, constrainer: Constrainer):
    together = make_engine(tiny, constrainer, 8)
    alone = [run(make_engine(tiny, constrainer, 1), [job])[0] for job in jobs(10, shared=60)]
    assert run(together, jobs(10, shared=60)) == alone
    assert together._prefixes.longest(prompts(10, 60)[3]) is not None


def test_prompts_longer_than_a_step_are_fed_in_parts(
    tiny: LocalModel, constrainer: Constrainer, monkeypatch: pytest.MonkeyPatch
):
    whole = run(make_engine(tiny, constrainer, 4), jobs(8, shared=60))
    monkeypatch.setattr(engine_module, "STEP_TOKENS", 7)
    assert run(make_engine(tiny, constrainer, 4), jobs(8, shared=60)) == whole


def test_little_memory_means_fewer_rows_at_a_time_and_the_same_replies(
    tiny: LocalModel, constrainer: Constrainer, monkeypatch: pytest.MonkeyPatch
):
    plenty = run(make_engine(tiny, constrainer, 4), jobs(8))
    monkeypatch.setattr(engine_module, "ROWS_BYTES", 70 * tiny.bytes_per_token)
    assert run(make_engine(tiny, constrainer, 4), jobs(8)) == plenty


def test_another_seed_is_another_reply_and_the_same_seed_the_same(tiny: LocalModel, constrainer: Constrainer):
    prompt = prompts(1, 0)[0]
    same = [Job(prompt, Sampling(temperature=1.0, max_tokens=30), seed) for seed in (1, 1, 2)]
    outcomes = run(make_engine(tiny, constrainer, 3), same)
    assert outcomes[0] == outcomes[1] != outcomes[2]


def test_a_reply_that_reaches_its_limit_says_so(tiny: LocalModel, constrainer: Constrainer):
    outcomes = run(make_engine(tiny, constrainer, 4), jobs(4, max_tokens=3))
    assert {(outcome.finish_reason, outcome.tokens) for outcome in outcomes if outcome.finish_reason != "stop"} == {
        ("length", 3)
    }


def test_a_reply_ends_before_its_first_stop_text(tiny: LocalModel, constrainer: Constrainer):
    (free,) = run(make_engine(tiny, constrainer, 1), jobs(1, max_tokens=30))
    stop = free.text[5:8]
    (stopped,) = run(make_engine(tiny, constrainer, 1), jobs(1, max_tokens=30, stop=("never", stop)))
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert stopped.tokens < free.tokens


def test_control_tokens_are_never_drawn(tiny: LocalModel, constrainer: Constrainer):
    outcomes = run(make_engine(tiny, constrainer, 16), jobs(16, temperature=50.0, max_tokens=40))
    assert not any("<|" in outcome.text for outcome in outcomes)


def test_a_schema_holds_even_for_a_model_that_writes_noise(tiny: LocalModel, constrainer: Constrainer):
    noisy = [
        Job(prompt, Sampling(temperature=2.0, max_tokens=200), seed, constrainer.start(SCHEMA))
        for seed, prompt in enumerate(prompts(8, 0))
    ]
    for outcome in run(make_engine(tiny, constrainer, 4), noisy):
        value = json.loads(outcome.text)
        assert value.keys() == {"question", "grade"}
        assert value["grade"] in ("low", "high")
        assert outcome.finish_reason == "stop"


def test_a_schema_cut_off_by_the_limit_is_not_called_whole(tiny: LocalModel, constrainer: Constrainer):
    job = Job(prompts(1, 0)[0], Sampling(temperature=1.0, max_tokens=14), 0, constrainer.start(SCHEMA))
    (outcome,) = run(make_engine(tiny, constrainer, 1), [job])
    assert (outcome.finish_reason, outcome.tokens) == ("length", 14)


def test_a_schema_that_does_not_compile_is_a_value_error(constrainer: Constrainer):
    with pytest.raises(ValueError, match="no-such-type"):
        constrainer.start({"type": "no-such-type"})


def test_labels_are_weighed_as_feeding_each_of_them_would(tiny: LocalModel, constrainer: Constrainer):
    labels = [[70, 71, 72], [70, 71], [80], [90, 91]]
    tree = label_tree(labels, tiny.ends[0])
    prompt = prompts(1, 30)[0]
    (outcome,) = run(make_engine(tiny, constrainer, 2), [Job(prompt, Sampling(), 0, None, tree)])
    by_hand = {}
    for node, path in enumerate([(), *_paths(tree.tokens, tree.mask)]):
        (one,) = run(
            make_engine(tiny, constrainer, 1),
            [Job((*prompt, *path), Sampling(), 0, None, label_tree([[token] for token in range(3, 200)], 2))],
        )
        by_hand[node] = one.scores
    wanted = [sum(float(by_hand[n][t - 3]) for n, t in path if t != 2) for path in tree.paths]
    assert outcome.scores is not None
    assert [float(outcome.scores[i]) for i in (0, 2, 3)] == pytest.approx([wanted[i] for i in (0, 2, 3)], abs=1e-3)
    assert torch.isfinite(outcome.scores).all()


def _paths(tokens, mask) -> list[tuple[int, ...]]:
    return [tuple(token for token, seen in zip(tokens, row, strict=True) if seen) for row in mask]
