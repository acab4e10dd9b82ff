"""A local causal LM, loaded for the engine: the network, the tokenizer, and which tokens end a turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

from bqbuild.llm.local.attention import ATTENTION, Step, attend


@dataclass(frozen=True, slots=True)
class LocalModel:
    """`ends` are the tokens that end a turn; `banned` [vocabulary] is -inf at tokens that are no text, else 0."""

    network: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerFast
    ends: tuple[int, ...]
    banned: Tensor
    context: int

    @property
    def vocabulary(self) -> int:
        """The number of logits."""
        return len(self.banned)

    @property
    def bytes_per_token(self) -> int:
        """Memory of one token's keys and values in all layers."""
        config = self.network.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(2 * 4 * config.num_hidden_layers * heads * dim)

    def forward(self, step: Step) -> Tensor:
        """Run one step; logits [wanted, vocabulary] of the step's wanted tokens, in the order of its feeds."""
        with torch.no_grad():
            logits: Tensor = self.network(
                input_ids=step.tokens,
                position_ids=step.positions,
                use_cache=False,
                logits_to_keep=step.wanted,
                step=step,
            ).logits[0]
        step.finish()
        return logits


def load_model(folder: Path, context: int | None) -> LocalModel:
    """Load a Hugging Face folder in fp32. `context` caps the tokens of a prompt and its reply.

    Raises OSError or ValueError where the folder is no causal LM, or of a kind that the engine can't run.
    """
    AttentionInterface.register(ATTENTION, attend)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers' own
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerFast):
        raise ValueError("it has no tokenizer.json")
    try:
        network = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, attn_implementation=ATTENTION
        )
    except SafetensorError as error:
        raise ValueError(f"the weights in {folder} are damaged: {error}") from error
    network.train(False)
    config = network.config.get_text_config()
    limits = [context, config.max_position_embeddings, getattr(config, "sliding_window", None)]
    vocabulary = config.vocab_size
    ends = _ends(network, tokenizer)
    return LocalModel(network, tokenizer, ends, _banned(tokenizer, vocabulary, ends), min(n for n in limits if n))


def _ends(network: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerFast) -> tuple[int, ...]:
    """The tokens that end a turn; the tokenizer's own first. Raises ValueError where there are none."""
    configured = network.generation_config.eos_token_id if network.generation_config is not None else None
    several = configured if isinstance(configured, list) else [configured]
    ends = tuple(dict.fromkeys(end for end in (tokenizer.eos_token_id, *several) if end is not None))
    if not ends:
        raise ValueError("its tokenizer names no token that ends a turn")
    return ends


def _banned(tokenizer: transformers.PreTrainedTokenizerFast, vocabulary: int, ends: Sequence[int]) -> Tensor:
    """A reply is text: control tokens other than the ends, and logits beyond the tokenizer, are never chosen."""
    banned = torch.zeros(vocabulary)
    banned[len(tokenizer) :] = float("-inf")
    special = [index for index, token in tokenizer.added_tokens_decoder.items() if token.special]
    banned[[index for index in special if index not in ends and index < vocabulary]] = float("-inf")
    return banned
