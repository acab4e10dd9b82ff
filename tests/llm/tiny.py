"""A random Llama of 30,000 weights with a byte tokenizer, and the same as a GGUF: for mechanics, not for sense."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 264,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dtype": "float32",
}


def write_tiny_model(folder: Path, *, seed: int = 0, chat_template: str | None = CHAT_TEMPLATE) -> Path:
    """A Hugging Face folder with random weights."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(tiny_weights(seed), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": chat_template}), "utf-8")
    return folder


def tiny_weights(seed: int) -> dict[str, np.ndarray]:
    """Random weights under transformers' names, large enough that the logits differ clearly."""
    random = np.random.default_rng(seed)
    hidden, inner, kv = 32, 64, 16
    shapes = {"model.embed_tokens": (264, hidden), "model.norm": (hidden,)}
    for layer in range(2):
        name = f"model.layers.{layer}"
        shapes |= {f"{name}.input_layernorm": (hidden,), f"{name}.post_attention_layernorm": (hidden,)}
        shapes |= {f"{name}.self_attn.q_proj": (hidden, hidden), f"{name}.self_attn.o_proj": (hidden, hidden)}
        shapes |= {f"{name}.self_attn.k_proj": (kv, hidden), f"{name}.self_attn.v_proj": (kv, hidden)}
        shapes |= {f"{name}.mlp.gate_proj": (inner, hidden), f"{name}.mlp.up_proj": (inner, hidden)}
        shapes |= {f"{name}.mlp.down_proj": (hidden, inner)}
    return {f"{name}.weight": random.normal(0, 0.25, shape).astype(np.float32) for name, shape in shapes.items()}


def byte_tokenizer():
    """A byte-level BPE with a few merges: one token a byte for most texts."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġt", "Ġth", "er"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "t"), ("Ġt", "h"), ("e", "r")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def write_tiny_gguf(path: Path, *, architecture: str = "llama", seed: int = 0) -> Path:
    """The same model as a GGUF file, laid out as llama.cpp does."""
    from gguf import GGUFWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-05)
    writer.add_vocab_size(264)
    tokens = json.loads(byte_tokenizer().to_str())["model"]["vocab"]
    padded = [*sorted(tokens, key=tokens.get), "unused 1", "unused 2"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(padded)
    writer.add_token_types([3] * 3 + [1] * (len(padded) - 3))
    writer.add_token_merges(["Ġ t", "Ġt h", "e r"])
    for add, token in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{add}_token_id")(token)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, value in tiny_weights(seed).items():
        writer.add_tensor(_gguf_name(name), _gguf_rows(name, value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str) -> str:
    outer = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in outer:
        return outer[name]
    parts = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{parts[part]}.weight"


def _gguf_rows(name: str, value: np.ndarray) -> np.ndarray:
    """llama.cpp's convert_hf_to_gguf.py puts the two halves of a head's rotary dimensions side by side."""
    heads = 4 if "q_proj" in name else 2 if "k_proj" in name else 0
    if not heads:
        return value
    halves = value.reshape(heads, 2, value.shape[0] // heads // 2, value.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(value.shape))
