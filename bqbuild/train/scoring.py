"""An LLM as lm-eval sees it: log-likelihoods of continuations, computed over trees of shared tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bqbuild.core.errors import BuildError
from bqbuild.train.trees import Tree, TreeBuilder, plant, tree_size

TREE_TOKENS = 512
"""Tokens in one forward pass: enough for full speed, little enough that attention stays cheap."""

Request = tuple[tuple[str, str], list[int], list[int]]
"""Context and continuation as text, and their tokens."""
Score = tuple[float, bool]
"""The log-likelihood of a continuation, and whether greedy decoding would have said it."""


class TreeLM(TemplateLM):  # type: ignore[misc]  # lm-eval has no types
    """Scores continuations with a model in memory, on the model's device.

    A model that cannot attend along a tree (one without position ids, say) is asked one sequence at a time.
    `report` hears how many of how many contexts are done.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        report: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        super().__init__()
        model.train(False)
        self.tokenizer = tokenizer
        self.cut_contexts = 0
        self._model = model
        self._report = report
        self._longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._trees = attends_along_trees(model)
        self._begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text, and stands for an empty context."""
        ids = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, 0)
        return next(token for token in ids if token is not None)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Tokens of `string`, after the token that begins a text where the model was trained with one."""
        tokens: list[int] = self.tokenizer(string, add_special_tokens=False, verbose=False)["input_ids"]
        begins = self._begins and add_special_tokens is not False and tokens[:1] != [self.tokenizer.bos_token_id]
        return [self.tokenizer.bos_token_id, *tokens] if begins else tokens

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[Score]:
        """The scores of lm-eval's requests, in their order, without lm-eval's own progress bar."""
        scores: list[Score] = super().loglikelihood(requests, disable_tqdm=True)
        return scores

    def _loglikelihood_tokens(self, requests: Sequence[Request], **kwargs: Any) -> list[Score]:
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, (_, context, _) in enumerate(requests):
            groups.setdefault(tuple(context), []).append(number)
        members = list(groups.values()) if self._trees else [[number] for number in range(len(requests))]
        inputs = [[self._input(requests[number]) for number in group] for group in members]
        # Twice a usual group: a long few-shot prefix, which all groups share, still leaves room for several.
        size = max(TREE_TOKENS, int(2 * median(map(tree_size, inputs)))) if self._trees and inputs else 0
        scores: dict[int, Score] = {}
        for planted, tree in plant(inputs, size=size):
            numbers = [number for place in planted for number in members[place]]
            ends = [requests[number][2] for number in numbers]
            scores.update(zip(numbers, self._score(tree, ends), strict=True))
            self._report(len(scores) * len(groups) // len(requests), len(groups))
        return [scores[number] for number in range(len(requests))]

    def _input(self, request: Request) -> list[int]:
        """What goes into the model: all but the last token, cut on the left to what the model takes."""
        tokens = (request[1] + request[2])[:-1]
        if self._longest is not None and len(tokens) > self._longest:
            self.cut_contexts += 1
            return tokens[-self._longest :]
        return tokens

    @torch.no_grad()
    def _score(self, tree: Tree, ends: Sequence[Sequence[int]]) -> list[Score]:
        """The scores of the continuations that end the tree's paths (without their last tokens)."""
        wanted = sorted({node for path, end in zip(tree.paths, ends, strict=True) for node in path[-len(end) :] if end})
        if not wanted:
            return [(0.0, True)] * len(ends)
        row = {node: number for number, node in enumerate(wanted)}
        logits = tree_logits(self._model, tree, wanted, masked=self._trees).log_softmax(-1)  # [K, V]
        scores = []
        for path, end in zip(tree.paths, ends, strict=True):
            told = logits[[row[node] for node in path[-len(end) :] if end]]  # [E, V]
            said = torch.tensor(list(end), device=logits.device, dtype=torch.long)
            likelihood = told.gather(1, said[:, None]).double().sum().item()
            scores.append((likelihood, bool((told.argmax(-1) == said).all())))
        return scores

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Perplexities of whole texts are no task of ours. Always raises BuildError."""
        raise BuildError("bqbuild evaluates no rolling log-likelihoods")

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Generative tasks are none of ours. Always raises BuildError."""
        raise BuildError("bqbuild evaluates no generative tasks")


def tree_logits(model: PreTrainedModel, tree: Tree, nodes: Sequence[int], *, masked: bool = True) -> torch.Tensor:
    """The model's logits at some nodes of a tree: [K, V], float32. Unmasked, the tree must be one plain sequence."""
    device = model.device
    inputs = torch.tensor(tree.tokens, device=device)[None]  # [1, N]
    kept = torch.tensor(list(nodes), device=device)  # [K]
    if not masked:
        return torch.as_tensor(model(input_ids=inputs).logits[0, kept]).float()
    hidden = ~torch.from_numpy(tree.visible).to(device)
    mask = torch.zeros(hidden.shape, dtype=model.dtype, device=device)
    mask.masked_fill_(hidden, torch.finfo(model.dtype).min)  # added to the attention scores
    logits = model(
        input_ids=inputs,
        attention_mask=mask[None, None],  # [1, 1, N, N]
        position_ids=torch.tensor(tree.positions, device=device)[None],
        use_cache=False,
        logits_to_keep=kept,
    ).logits  # [1, K, V]
    return torch.as_tensor(logits[0]).float()


@torch.no_grad()
def attends_along_trees(model: PreTrainedModel) -> bool:
    """Whether the model takes a mask and positions of our own, and no tokens but those the mask shows; tried out."""
    words = [number % model.config.get_text_config().vocab_size for number in range(12)]
    sequences = [words[:8], [*words[:4], *words[8:]]]
    builder = TreeBuilder()
    for sequence in sequences:
        builder.add(sequence)
    tree = builder.finish()
    try:
        along = tree_logits(model, tree, [path[-1] for path in tree.paths])
        alone = [model(input_ids=torch.tensor([sequence], device=model.device)).logits[0, -1] for sequence in sequences]
    except (TypeError, ValueError, RuntimeError, IndexError):  # arguments that this kind of model does not know
        return False
    # In bfloat16 two ways to compute the same thing differ in the second digit.
    tolerance = 1e-3 if model.dtype is torch.float32 else 0.1
    return along.shape[0] == 2 and bool(
        torch.allclose(along, torch.stack(alone).float(), rtol=tolerance, atol=tolerance)
    )
