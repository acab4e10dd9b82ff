"""How the next token is chosen: the parameters that the engine knows, and the draw. Deterministic given `uniform`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NUCLEUS = 1024
"""top_p, top_k and min_p choose among this many likeliest tokens."""

DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Sampling:
    """Parameters of one row, under OpenAI's names where it has one. Temperature 0 takes the likeliest token."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    max_tokens: int = DEFAULT_MAX_TOKENS
    stop: tuple[str, ...] = ()

    @property
    def filters(self) -> bool:
        """Whether only some of the tokens may be drawn."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0

    @property
    def penalises(self) -> bool:
        """Whether tokens that the reply already has become less likely."""
        return (self.repetition_penalty, self.frequency_penalty, self.presence_penalty) != (1.0, 0.0, 0.0)


RANGES = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 100.0),
    "frequency_penalty": (-100.0, 100.0),
    "presence_penalty": (-100.0, 100.0),
}
WHOLE = {"top_k": 0, "max_tokens": 1}
SEEN_ELSEWHERE = ("seed",)
"""Parameters that count through the seed, which is a digest of the whole request."""


def read_sampling(params: Mapping[str, Any]) -> tuple[Sampling, tuple[str, ...]]:
    """The parameters of a request, and the names of those that this engine does not know.

    Raises ValueError, with a line for the user, for a value that makes no sense.
    """
    known: dict[str, Any] = {}
    unknown = []
    for written, value in params.items():
        name = "max_tokens" if written == "max_completion_tokens" else written
        if value is None or name in SEEN_ELSEWHERE:
            continue
        if name in RANGES:
            known[name] = _number(name, value)
        elif name in WHOLE:
            known[name] = _whole(name, value)
        elif name == "stop":
            known[name] = _stops(value)
        else:
            unknown.append(name)
    return Sampling(**known), tuple(unknown)


def _number(name: str, value: object) -> float:
    low, high = RANGES[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"`{name}` is a number from {low:g} to {high:g}, not {value!r}")
    return float(value)


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < WHOLE[name]:
        raise ValueError(f"`{name}` is a whole number from {WHOLE[name]}, not {value!r}")
    return value


def _stops(value: object) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else (None,)
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise ValueError(f"`stop` is a text or a list of texts, not {value!r}")
    return stops


def penalise(logits: Tensor, sampling: Sampling, made: Sequence[int]) -> None:
    """Lower the logits [vocabulary] of tokens that the reply already has, in place. Penalties as in vLLM."""
    if not made or not sampling.penalises:
        return
    tokens, counts = torch.unique(torch.tensor(made), return_counts=True)
    values = logits[tokens]
    values = torch.where(values > 0, values / sampling.repetition_penalty, values * sampling.repetition_penalty)
    logits[tokens] = values - sampling.frequency_penalty * counts - sampling.presence_penalty


def draw(logits: Tensor, samplings: Sequence[Sampling], uniform: Sequence[float]) -> list[int]:
    """One token a row: logits [rows, vocabulary], and for each row a number in [0, 1) that decides.

    Every row is drawn from its own distribution by its own number, so that its neighbours can't change it.
    """
    chosen = logits.argmax(-1).tolist()
    warm = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    for filtered in (False, True):
        rows = [row for row in warm if samplings[row].filters == filtered]
        if not rows:
            continue
        temperatures = torch.tensor([samplings[row].temperature for row in rows])
        scaled = logits[rows] / temperatures[:, None]
        numbers = torch.tensor([uniform[row] for row in rows], dtype=torch.float64)
        pick = (
            _draw_filtered(scaled, [samplings[row] for row in rows], numbers)
            if filtered
            else _invert(scaled.softmax(-1), numbers)
        )
        for row, token in zip(rows, pick.tolist(), strict=True):
            chosen[row] = token
    return [int(token) for token in chosen]


def _draw_filtered(scaled: Tensor, samplings: Sequence[Sampling], numbers: Tensor) -> Tensor:
    """Draw among the likeliest tokens that top_k, top_p and min_p leave; the first of them always stays."""
    top = scaled.topk(min(NUCLEUS, scaled.shape[-1]), -1)
    weights = (top.values - scaled.logsumexp(-1, keepdim=True)).exp()
    before = weights.cumsum(-1) - weights
    top_k = torch.tensor([sampling.top_k or math.inf for sampling in samplings])[:, None]
    top_p = torch.tensor([sampling.top_p for sampling in samplings])[:, None]
    min_p = torch.tensor([sampling.min_p for sampling in samplings])[:, None]
    kept = (before < top_p) & (torch.arange(weights.shape[-1]) < top_k) & (weights >= min_p * weights[:, :1])
    kept[:, 0] = True
    return top.indices.gather(-1, _invert(weights * kept, numbers)[:, None])[:, 0]


def _invert(weights: Tensor, numbers: Tensor) -> Tensor:
    """The index at which the running sum of `weights` [rows, n] passes each row's number in [0, 1)."""
    sums = weights.double().cumsum(-1)
    index = torch.searchsorted(sums, numbers[:, None] * sums[:, -1:], right=True)[:, 0]
    last = (weights > 0).long().cumsum(-1).argmax(-1)  # rounding may carry a number past the last possible token
    return torch.minimum(index, last)
