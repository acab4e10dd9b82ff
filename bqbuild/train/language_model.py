"""Opens causal language models and their tokenizers from a folder, or makes one from a config. Offline and quiet."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from bqbuild.core.errors import BuildError, StoreError


def pick_device() -> torch.device:
    """The first accelerator there is, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Compute with so many threads (None: as torch would), and go back to what was."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def open_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`. Raises BuildError where there is none."""
    with _quiet():
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise BuildError(f"no tokenizer in {folder}: {_first_line(error)}") from error
    return tokenizer


def open_model(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model in `folder`, on the picked device. Raises BuildError where it cannot be read."""
    with _quiet():
        try:
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=dtype)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise BuildError(f"no causal language model in {folder}: {_first_line(error)}") from error
    model.to(device=pick_device())  # type: ignore[call-arg]  # its decorator hides `self`
    return model


def make_model(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A model with random weights. `config` is a transformers config with its `model_type`.

    Vocabulary and special tokens are the tokenizer's where the config leaves them out. Raises BuildError for a config
    that transformers does not take, or whose vocabulary is smaller than the tokenizer's.
    """
    values = dict(config)
    kind = values.pop("model_type", None)
    if not isinstance(kind, str):
        raise BuildError("a config to start from scratch needs a `model_type`", hint="for example `model_type: llama`")
    values.setdefault("vocab_size", len(tokenizer))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        values.setdefault(name, getattr(tokenizer, name))
    if values["vocab_size"] < len(tokenizer):
        raise BuildError(f"vocab_size {values['vocab_size']} is smaller than the tokenizer's {len(tokenizer)}")
    with _quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            made = AutoConfig.for_model(kind, **values)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(made)  # type: ignore[no-untyped-call]  # untyped
        except (ValueError, TypeError, AttributeError, ZeroDivisionError, RuntimeError) as error:
            raise BuildError(f"transformers makes no `{kind}` model of this config: {_first_line(error)}") from error
    model.to(device=pick_device(), dtype=torch.float32)  # type: ignore[call-arg]  # its decorator hides `self`
    return model


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write both to `folder` as Hugging Face files. Raises StoreError where the disk does not take them."""
    with _quiet():
        try:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            message = f"cannot write the trained weights to {folder}: {_first_line(error)}"
            raise StoreError(message, hint="free some space and run again") from error


@torch.no_grad()
def keeps_documents_apart(model: PreTrainedModel) -> bool:
    """Whether positions that restart at 0 really keep the model from looking back, as packing needs; tried out."""
    model.train(False)
    second = torch.arange(8, device=model.device).remainder(model.config.get_text_config().vocab_size)[None]
    first = second.flip(1)
    positions = torch.arange(8, device=model.device)[None]
    packed = model(
        input_ids=torch.cat([first, second], dim=1),
        position_ids=torch.cat([positions, positions], dim=1),
        use_cache=False,
    ).logits[:, 8:]
    alone = model(input_ids=second, position_ids=positions, use_cache=False).logits
    return bool(torch.allclose(packed, alone, rtol=1e-3, atol=1e-3))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and warnings that transformers writes to the terminal while it loads."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped in transformers
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # untyped too


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
