"""A real language model and tokenizer, small enough to train in a second: for the tests of training and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bqbuild.train.language_model import make_model, open_tokenizer, save_model

SENTENCES = [
    "Water boils at one hundred degrees.",
    "The heart pumps blood through the body.",
    "A triangle has three sides and three angles.",
    "Plants make sugar from light, water and air.",
    "Iron rusts in wet air, and gold does not.",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def write_tokenizer(folder: Path) -> Path:
    """A byte-level BPE of some 300 tokens, trained on `SENTENCES`, with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return folder


def write_model(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A tokenizer and a random model beside it."""
    write_tokenizer(folder)
    tokenizer = open_tokenizer(folder)
    save_model(make_model({**CONFIG, **changes}, tokenizer, seed), tokenizer, folder)
    return folder
