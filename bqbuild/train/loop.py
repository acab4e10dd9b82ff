"""Trains a causal language model on packed documents: one plain loop.

    for each step:
        blocks   ← stream[step · batch_size …]      [batch_size, seq_len], no padding, documents kept apart
        loss     ← mean over all targets of the step, summed up in micro-batches
        clip, AdamW, learning rate of the step
        sometimes: loss on held-out documents; a checkpoint
    weights, tokenizer → folder

Everything about a step follows from its number, the documents and the seed; a checkpoint adds weights, optimizer and
random state. So a run that was killed and goes on gives the curve of one that was not, on the same number of threads.
One process, one device; float32 weights, and with `bf16` bfloat16 arithmetic in forward and backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from bqbuild.core.errors import BuildError
from bqbuild.core.hashing import digest
from bqbuild.train.checkpoint import State, load_state, random_state, save_state, set_random_state
from bqbuild.train.language_model import keeps_documents_apart, torch_threads
from bqbuild.train.packing import IGNORED, Block, Corpus, Stream
from bqbuild.train.schedule import Schedule, learning_rate


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train: lengths and budgets in tokens, `batch_size` in sequences a step, `warmup` and `decay` in parts."""

    seq_len: int
    tokens: int
    batch_size: int
    learning_rate: float
    micro_batch_size: int | None = None
    schedule: Schedule = "wsd"
    warmup: float = 0.05
    decay: float = 0.2
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    dtype: str = "fp32"
    eval_every: int = 50
    eval_tokens: int = 16384
    checkpoint_every: int = 100
    seed: int = 0
    threads: int | None = None

    @property
    def steps(self) -> int:
        """The number of steps that spend the budget; at least one, and the last may overshoot it."""
        return max(1, math.ceil(self.tokens / (self.batch_size * self.seq_len)))


@dataclass(frozen=True, slots=True)
class Point:
    """One row of the curve. Step 0 is the base model: it has a held-out loss and nothing else."""

    step: int
    tokens: int
    learning_rate: float | None = None
    loss: float | None = None
    heldout_loss: float | None = None
    grad_norm: float | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """Where an unfinished run is kept, and what is told of it.

    `run` names what is trained (the base, say), so that no other run's checkpoint is taken; `report` hears of every
    finished step and of how many there are.
    """

    folder: Path
    run: str
    report: Callable[[Point, int], None] = lambda _point, _steps: None


def train(model: PreTrainedModel, training: Corpus, heldout: Corpus, config: TrainConfig, work: Work) -> list[Point]:
    """Train `model` in place and return the curve; an unfinished run in `work.folder` goes on.

    Raises BuildError where training diverges or the model cannot keep packed documents apart, StoreError where a
    checkpoint cannot be written.
    """
    with torch_threads(config.threads), torch.random.fork_rng():
        torch.manual_seed(config.seed)
        run = digest([work.run, _identity(config), training.digest, heldout.digest])
        blocks = heldout_blocks(heldout, config)
        return _train(model, Stream(training, config.seed), blocks, config, replace(work, run=run))


def _train(
    model: PreTrainedModel,
    stream: Stream,
    heldout: Sequence[Block],
    config: TrainConfig,
    work: Work,
) -> list[Point]:
    if not keeps_documents_apart(model):
        kind = model.config.model_type
        raise BuildError(f"`{kind}` models attend across packed documents", hint="train a model with position ids")
    optimizer = make_optimizer(model, config)
    state = load_state(work.folder, run=work.run)
    if state is None:
        curve = [Point(step=0, tokens=0, heldout_loss=heldout_loss(model, heldout, config))]
        work.report(curve[0], config.steps)
    else:
        model.load_state_dict(dict(state.model))
        optimizer.load_state_dict(dict(state.optimizer))
        set_random_state(state.random)
        curve = [Point(**row) for row in state.curve]

    for step in range(len(curve), config.steps + 1):
        rate = learning_rate(
            step - 1,
            config.steps,
            peak=config.learning_rate,
            schedule=config.schedule,
            warmup=config.warmup,
            decay=config.decay,
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, norm = train_step(model, optimizer, step_blocks(stream, step, config), config)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise BuildError(f"training diverged at step {step}: the loss is {loss}", hint="lower `learning_rate`")
        last = step == config.steps
        measured = heldout_loss(model, heldout, config) if last or step % config.eval_every == 0 else None
        tokens = step * config.batch_size * config.seq_len
        curve.append(Point(step, tokens, learning_rate=rate, loss=loss, heldout_loss=measured, grad_norm=norm))
        work.report(curve[-1], config.steps)
        if not last and step % config.checkpoint_every == 0:
            rows = [asdict(point) for point in curve]
            now = State(step, model.state_dict(), optimizer.state_dict(), random_state(), rows)
            save_state(work.folder, now, run=work.run)
    return curve


def train_step(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, blocks: Sequence[Block], config: TrainConfig
) -> tuple[float, float]:
    """One update on `blocks`; the mean loss of a target, and the norm of the gradient before it was clipped."""
    model.train()
    micro = config.micro_batch_size or len(blocks)
    # All micro-batches are divided by the targets of the whole step: how a step is cut up cannot change it.
    targets = max(sum(int((block.targets != IGNORED).sum()) for block in blocks), 1)
    total = 0.0
    for start in range(0, len(blocks), micro):
        loss = summed_loss(model, blocks[start : start + micro], config) / targets
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        total += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, norm.item()


def summed_loss(model: PreTrainedModel, blocks: Sequence[Block], config: TrainConfig) -> torch.Tensor:
    """The negative log-likelihood of all targets of `blocks`, which are of one length: a scalar, in nats."""
    device = model.device
    inputs, positions, targets = (
        torch.stack([torch.from_numpy(getattr(block, name)) for block in blocks]).to(device)  # [B, T]
        for name in ("inputs", "positions", "targets")
    )
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.dtype == "bf16"):
        # No mask: transformers makes a block-diagonal causal one of positions that restart.
        logits = model(input_ids=inputs, position_ids=positions, use_cache=False).logits  # [B, T, V]
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def step_blocks(stream: Stream, step: int, config: TrainConfig) -> list[Block]:
    """The blocks of step `step`, which counts from 1."""
    first = (step - 1) * config.batch_size
    return [stream.block((first + number) * config.seq_len, config.seq_len) for number in range(config.batch_size)]


def heldout_blocks(corpus: Corpus, config: TrainConfig) -> list[Block]:
    """The same stretch of held-out documents every time: at most `eval_tokens` tokens, none twice."""
    size = min(corpus.size - 1, config.eval_tokens)
    if size < 1:
        return []
    stream = Stream(corpus, seed=0)
    starts = range(0, size, config.seq_len)
    return [stream.block(start, min(config.seq_len, size - start)) for start in starts]


@torch.no_grad()
def heldout_loss(model: PreTrainedModel, blocks: Sequence[Block], config: TrainConfig) -> float | None:
    """The mean loss of a held-out target in nats, or None where nothing is held out."""
    targets = sum(int((block.targets != IGNORED).sum()) for block in blocks)
    if not targets:
        return None
    model.train(False)
    return sum(summed_loss(model, [block], config).item() for block in blocks) / targets


def make_optimizer(model: PreTrainedModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; biases and norms, which have one dimension, do not decay."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def _identity(config: TrainConfig) -> dict[str, object]:
    """What of the config a checkpoint must have been made with; how often one is written is free to change."""
    return {name: value for name, value in asdict(config).items() if name not in ("checkpoint_every", "threads")}
