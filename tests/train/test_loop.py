"""Training: documents do not see each other, the loss falls, micro-batches change nothing, a killed run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bqbuild.core.errors import BuildError
from bqbuild.train.documents import text_documents
from bqbuild.train.language_model import keeps_documents_apart, make_model, open_tokenizer
from bqbuild.train.loop import Point, TrainConfig, Work, make_optimizer, step_blocks, train, train_step
from bqbuild.train.packing import Corpus, Document, Stream, write_corpus
from tests.train.tiny import CONFIG, SENTENCES, write_tokenizer

TINY = TrainConfig(
    seq_len=32, tokens=20 * 2 * 32, batch_size=2, learning_rate=1e-2, eval_every=10, checkpoint_every=5, threads=1
)


def corpora(folder: Path) -> tuple[Corpus, Corpus]:
    tokenizer = open_tokenizer(write_tokenizer(folder / "tokenizer"))
    training = write_corpus(text_documents(tokenizer, SENTENCES * 3), folder, "train")
    return training, write_corpus(text_documents(tokenizer, SENTENCES[:2]), folder, "heldout")


def tiny_model(folder: Path, **changes: object):
    return make_model({**CONFIG, **changes}, open_tokenizer(write_tokenizer(folder / "tokenizer")), seed=0)


def curve_of(folder: Path, config: TrainConfig, kill_at: int = 0) -> list[Point]:
    """Train in this process; `kill_at` ends it the hard way after that step."""

    def report(point: Point, steps: int) -> None:
        if point.step == kill_at > 0:
            os.kill(os.getpid(), signal.SIGKILL)

    training, heldout = corpora(folder)
    return train(tiny_model(folder), training, heldout, config, Work(folder / "work", "tiny", report))


def test_twenty_steps_make_the_loss_fall(tmp_path: Path) -> None:
    curve = curve_of(tmp_path, TINY)
    assert [point.step for point in curve] == list(range(21))
    assert [point.step for point in curve if point.heldout_loss is not None] == [0, 10, 20]
    assert curve[0].loss is None
    assert curve[20].tokens == TINY.tokens
    losses = [point.loss for point in curve[1:] if point.loss is not None]
    assert losses[-1] < losses[0] - 1
    assert curve[20].heldout_loss < curve[0].heldout_loss - 1


def test_training_twice_gives_the_same_curve(tmp_path: Path) -> None:
    assert curve_of(tmp_path / "one", TINY) == curve_of(tmp_path / "other", TINY)


def test_a_killed_run_goes_on_to_the_same_curve_and_weights(tmp_path: Path) -> None:
    config = replace(TINY, checkpoint_every=3)
    whole = curve_of(tmp_path / "whole", config)
    script = f"""
from dataclasses import replace
from pathlib import Path
from tests.train.test_loop import TINY, curve_of
curve_of(Path({str(tmp_path / "cut")!r}), replace(TINY, checkpoint_every=3), kill_at=8)
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -signal.SIGKILL
    seen: list[int] = []
    training, heldout = corpora(tmp_path / "cut")
    work = Work(tmp_path / "cut" / "work", "tiny", lambda point, steps: seen.append(point.step))
    assert train(tiny_model(tmp_path / "cut"), training, heldout, config, work) == whole
    assert seen == list(range(7, 21))


def test_dropout_too_goes_on_where_it_was(tmp_path: Path) -> None:
    training, heldout = corpora(tmp_path)
    curves = []
    for folder, first in ((tmp_path / "whole", TINY.tokens), (tmp_path / "cut", TINY.tokens)):
        model = tiny_model(tmp_path, attention_dropout=0.2)
        stop = 8 if folder.name == "cut" else 99

        def report(point: Point, steps: int, stop: int = stop) -> None:
            if point.step == stop:
                raise InterruptedError

        config = replace(TINY, tokens=first)
        try:
            curves.append(train(model, training, heldout, config, Work(folder, "tiny", report)))
        except InterruptedError:
            again = tiny_model(tmp_path, attention_dropout=0.2)
            curves.append(train(again, training, heldout, config, Work(folder, "tiny")))
    assert curves[0] == curves[1]


def test_a_checkpoint_of_other_documents_base_or_settings_is_not_taken(tmp_path: Path) -> None:
    training, heldout = corpora(tmp_path)

    def steps_run(config: TrainConfig, run: str, data: Corpus) -> int:
        seen: list[int] = []
        work = Work(tmp_path / "work", run, lambda point, steps: seen.append(point.step))
        train(tiny_model(tmp_path), data, heldout, config, work)
        return len(seen)

    assert steps_run(TINY, "tiny", training) == 21
    assert steps_run(TINY, "tiny", training) == 5  # from the last checkpoint, after step 15, on
    assert steps_run(TINY, "another base", training) == 21
    assert steps_run(replace(TINY, learning_rate=1e-3), "tiny", training) == 21
    fewer = write_corpus([Document([1, 2, 3] * 20)], tmp_path, "fewer")
    assert steps_run(TINY, "tiny", fewer) == 21


def test_a_torn_checkpoint_is_not_taken(tmp_path: Path) -> None:
    whole = curve_of(tmp_path, TINY)
    state = tmp_path / "work" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    assert curve_of(tmp_path, TINY) == whole


def test_packed_documents_do_not_see_each_other(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    assert keeps_documents_apart(model)
    tokens = torch.arange(20)[None] % 300
    positions = torch.cat([torch.arange(8), torch.arange(12)])[None]
    changed = tokens.clone()
    changed[0, :8] = 7
    with torch.no_grad():
        one = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
        other = model(input_ids=changed, position_ids=positions, use_cache=False).logits
        alone = model(input_ids=tokens[:, 8:], use_cache=False).logits
    torch.testing.assert_close(one[:, 8:], other[:, 8:])
    torch.testing.assert_close(one[:, 8:], alone)


def test_a_model_that_looks_across_documents_is_refused(tmp_path: Path) -> None:
    training, heldout = corpora(tmp_path)
    bloom = {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4}
    model = make_model(bloom, open_tokenizer(tmp_path / "tokenizer"), seed=0)
    with pytest.raises(BuildError, match="across packed documents"):
        train(model, training, heldout, TINY, Work(tmp_path / "work", "bloom"))


def test_micro_batches_do_not_change_a_step(tmp_path: Path) -> None:
    training, _ = corpora(tmp_path)
    results = []
    for micro in (None, 1, 3):
        config = replace(TINY, batch_size=4, micro_batch_size=micro)
        model = tiny_model(tmp_path)
        blocks = step_blocks(Stream(training, 0), 1, config)
        results.append(train_step(model, make_optimizer(model, config), blocks, config))
    assert results[1] == pytest.approx(results[0], rel=1e-5)
    assert results[2] == pytest.approx(results[0], rel=1e-5)


def test_bf16_arithmetic_trains_float32_weights(tmp_path: Path) -> None:
    training, heldout = corpora(tmp_path)
    model = tiny_model(tmp_path)
    curve = train(model, training, heldout, replace(TINY, dtype="bf16"), Work(tmp_path / "work", "tiny"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert curve[20].heldout_loss < curve[0].heldout_loss - 1


def test_without_held_out_documents_there_is_no_held_out_loss(tmp_path: Path) -> None:
    training, _ = corpora(tmp_path)
    nothing = write_corpus([], tmp_path, "nothing")
    curve = train(tiny_model(tmp_path), training, nothing, TINY, Work(tmp_path / "work", "tiny"))
    assert {point.heldout_loss for point in curve} == {None}


def test_a_run_that_diverges_ends_with_advice(tmp_path: Path) -> None:
    training, heldout = corpora(tmp_path)
    config = replace(TINY, learning_rate=1e30, warmup=0.0, clip=1e30)
    model, work = tiny_model(tmp_path), Work(tmp_path / "work", "tiny")
    with pytest.raises(BuildError, match="diverged") as caught:
        train(model, training, heldout, config, work)
    assert caught.value.hint == "lower `learning_rate`"


def test_the_budget_is_spent_in_whole_steps() -> None:
    assert replace(TINY, tokens=1).steps == 1
    assert replace(TINY, tokens=64).steps == 1
    assert replace(TINY, tokens=65).steps == 2
    assert json.dumps(TINY.steps) == "20"
