"""From a GGUF file of a Llama model to a Hugging Face folder: config, fp32 safetensors, tokenizer, chat template.

transformers can read a GGUF, but takes a minute of CPU for this one and refuses to save what it read; the layout is
simple enough to write down. Only what SmolLM2 needs is here: architecture `llama`, a byte-level BPE (`gpt2`/`smollm`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from bqbuild.core.errors import BqError
from bqbuild.core.hashing import digest, digest_file

CONTROL_TOKEN = 3
"""GGUF's type of a token that is never made of text, such as `<|im_start|>`."""

LAYER_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_PARTS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def convert_gguf(gguf: Path, folder: Path) -> dict[str, str]:
    """Write `gguf` as a Hugging Face folder; its identity (digests of weights, tokenizer and chat template).

    The digests are those of the GGUF's content, not of the files written: a release of a library that writes them
    differently leaves the LLM the same. Raises BqError where it is not a Llama model with a byte-level BPE.
    """
    try:
        reader = GGUFReader(gguf)
    except (ValueError, OSError, IndexError) as error:
        raise BqError(f"{gguf} is not a readable GGUF file: {error}") from error
    facts = {name: field.contents() for name, field in reader.fields.items()}
    kind = (facts.get("general.architecture"), facts.get("tokenizer.ggml.model"))
    if kind != ("llama", "gpt2"):
        raise BqError(f"{gguf.name} is a {kind[0]} model with a {kind[1]} tokenizer; only llama with gpt2 is converted")
    config = _config(facts)
    folder.mkdir(parents=True)
    weights = folder / "model.safetensors"
    save_file(dict(_tensors(reader.tensors, config)), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors writes 0o600, which would shut others out of a shared cache
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", _generation_config(config))
    _write_tokenizer(folder, facts)
    words = [facts[f"tokenizer.ggml.{part}"] for part in ("pre", "tokens", "token_type", "merges")]
    chat_template = digest(facts["tokenizer.chat_template"])
    return {"weights": digest_file(gguf), "tokenizer": digest(words), "chat_template": chat_template}


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    """config.json of transformers' LlamaForCausalLM."""
    heads = facts["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": facts["llama.vocab_size"],
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "head_dim": facts["llama.embedding_length"] // heads,
        "hidden_act": "silu",
        "max_position_embeddings": facts["llama.context_length"],
        # a float32 in the file: 9.999999747378752e-06 was 1e-05
        "rms_norm_eps": float(f"{facts['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(facts["llama.rope.freq_base"])},
        "rope_theta": float(facts["llama.rope.freq_base"]),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        "dtype": "float32",
    }


def _generation_config(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _tensors(tensors: list[ReaderTensor], config: dict[str, Any]) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Every weight under its name in transformers, dequantised to float32."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for tensor in tensors:
        outer, _, rest = tensor.name.partition(".")
        value = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if outer != "blk":
            yield f"{OUTER_PARTS[outer]}.weight", value
            continue
        layer, part, _ = rest.split(".")
        if part in heads:
            value = _rotary_halves(value, heads[part])
        yield f"model.layers.{layer}.{LAYER_PARTS[part]}.weight", value


def _rotary_halves(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """GGUF keeps rotary pairs side by side, transformers in two halves of a head.

    [heads, dim / 2, 2, in] becomes [heads, 2, dim / 2, in].
    """
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, weight.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(weight.shape))


def _write_tokenizer(folder: Path, facts: dict[str, Any]) -> None:
    """tokenizer.json and tokenizer_config.json of SmolLM2's byte-level BPE, which splits numbers into digits."""
    tokens: list[str] = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = facts["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokens[facts["tokenizer.ggml.bos_token_id"]],
            "eos_token": tokens[facts["tokenizer.ggml.eos_token_id"]],
            "pad_token": tokens[facts["tokenizer.ggml.padding_token_id"]],
            "unk_token": tokens[facts["tokenizer.ggml.unknown_token_id"]],
            "model_max_length": facts["llama.context_length"],
            "clean_up_tokenization_spaces": False,
            "chat_template": facts["tokenizer.chat_template"],
        },
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
