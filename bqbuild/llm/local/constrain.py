"""Replies that must fit a JSON Schema, token by token. Why llguidance: docs/decisions/constrained-decoding.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

OPTIONS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as `json.dumps` writes it, on one line: what is left to choose is content, and punctuation is never sampled."""


class Constrainer:
    """Compiles schemas for one tokenizer; a schema is compiled once."""

    def __init__(self, tokenizer_json: str, vocabulary: int, ends: Sequence[int]) -> None:
        self._tokenizer = LLTokenizer(tokenizer_json, n_vocab=vocabulary, eos_token=list(ends))
        self._ends = list(ends)
        self._words = (vocabulary + 31) // 32
        self._vocabulary = vocabulary
        self._compiled: dict[str, LLMatcher] = {}

    def start(self, schema: Mapping[str, Any]) -> Guide:
        """A fresh guide for one reply. Raises ValueError for a schema that can't be compiled."""
        text = json.dumps(schema)
        if text not in self._compiled:
            grammar = LLMatcher.grammar_from_json_schema(text, overrides=OPTIONS)  # type: ignore[arg-type]  # its TypedDict exists for mypy alone
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
            if matcher.is_error():
                raise ValueError((matcher.get_error().splitlines() or ["it does not compile"])[0])
            self._compiled[text] = matcher
        return Guide(self._compiled[text].deep_copy(), self._ends)

    def forbid(self, logits: Tensor, guides: Sequence[tuple[int, Guide]]) -> None:
        """Set the logits [rows, vocabulary] of tokens that a row's guide does not allow to -inf, in place."""
        if not guides:
            return
        bits = np.zeros((len(guides), self._words), np.int32)
        for index, (_, guide) in enumerate(guides):
            guide.matcher.unsafe_compute_mask_ptr(bits[index].ctypes.data, bits[index].nbytes)
        allowed = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, : self._vocabulary]
        for stuck in np.flatnonzero(~allowed.any(1)):
            allowed[stuck, self._ends] = 1
        rows = [row for row, _ in guides]
        logits[rows] = logits[rows].masked_fill(torch.from_numpy(allowed == 0), float("-inf"))


class Guide:
    """Where one reply is in its schema."""

    def __init__(self, matcher: LLMatcher, ends: Sequence[int]) -> None:
        self.matcher = matcher
        self._ends = ends

    def forced(self) -> list[int]:
        """The tokens that must come next whatever the model thinks, already taken; often none."""
        tokens = self.matcher.compute_ff_tokens()
        if tokens:
            self.matcher.consume_tokens(tokens)
        return [token for token in tokens if token not in self._ends]

    def take(self, token: int) -> None:
        """Go on by one token that was allowed. Raises ValueError where it was not."""
        if not self.matcher.consume_token(token):
            raise ValueError(f"the schema does not allow token {token}: {self.matcher.get_error()}")

    @property
    def done(self) -> bool:
        """Whether the reply is whole and nothing may follow."""
        return self.matcher.is_stopped()
