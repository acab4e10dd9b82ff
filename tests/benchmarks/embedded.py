"""How fast the embedded model reads and writes, in tokens per CPU second of one thread.

    python tests/benchmarks/embedded.py [prefix tokens] [suffix tokens]

CPU seconds and one thread, because they depend least on who else uses the machine. Beside it, transformers
with its own attention and cache, over prompts of the same length.
"""

from __future__ import annotations

import sys
import time
from random import Random
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from bqbuild.llm.local.attention import Feed, Slots, Step
from bqbuild.llm.local.model import LocalModel, load_model
from bqbuild.llm.weights import resolve_weights

BATCHES = (1, 8, 16, 32)
STEPS = 5


def main(prefix_tokens: int = 300, suffix_tokens: int = 100) -> None:
    """Print one line a batch size."""
    torch.set_num_threads(1)
    model = load_model(resolve_weights("embedded"), None)
    network = AutoModelForCausalLM.from_pretrained(resolve_weights("embedded"), dtype=torch.float32)
    for batch in BATCHES:
        read, write = ours(model, batch, prefix_tokens, suffix_tokens)
        line = f"batch {batch:3}: reads {read:5.0f} tokens, writes {write:5.0f} tokens per CPU s"
        read, write = theirs(network, batch, prefix_tokens + suffix_tokens)
        print(f"{line}; transformers {read:5.0f} and {write:5.0f}", flush=True)


def ours(model: LocalModel, batch: int, prefix_tokens: int, suffix_tokens: int) -> tuple[float, float]:
    """Tokens per CPU second of prompts read, after a shared prefix, and of replies written."""
    random = Random(0)
    slots = Slots(batch)
    slots.reserve(max(prefix_tokens, suffix_tokens + STEPS + 1))
    shared = tuple(random.randrange(5, 40000) for _ in range(prefix_tokens))
    model.forward(Step(slots, [Feed(0, shared, range(prefix_tokens), None, ())]))
    prefix = slots.as_prefix(0, shared, None)
    slots.lengths = [0] * batch
    start = time.process_time()
    for first in range(0, batch, 5):
        suffixes = [
            [random.randrange(5, 40000) for _ in range(suffix_tokens)] for _ in range(first, min(batch, first + 5))
        ]
        places = range(prefix_tokens, prefix_tokens + suffix_tokens)
        feeds = [Feed(first + row, tokens, places, prefix, (suffix_tokens - 1,)) for row, tokens in enumerate(suffixes)]
        model.forward(Step(slots, feeds))
    read = batch * suffix_tokens / (time.process_time() - start)
    start = time.process_time()
    for step in range(STEPS):
        place = prefix_tokens + suffix_tokens + step
        model.forward(Step(slots, [Feed(row, [77], [place], prefix, (0,)) for row in range(batch)]))
    return read, batch * STEPS / (time.process_time() - start)


def theirs(network: Any, batch: int, tokens: int) -> tuple[float, float]:
    """The same with transformers' own attention and cache, which read the shared prefix with every prompt."""
    prompts = torch.randint(5, 40000, (batch, tokens))
    with torch.no_grad():
        start = time.process_time()
        state = network(prompts, use_cache=True, logits_to_keep=1).past_key_values
        read = batch * tokens / (time.process_time() - start)
        start = time.process_time()
        for _ in range(STEPS):
            network(torch.full((batch, 1), 77), past_key_values=state, use_cache=True)
    return read, batch * STEPS / (time.process_time() - start)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
