"""From messages to the tokens of a prompt. What is too long loses the middle of its last user message."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2
import transformers

from bqbuild.core.records import Message

GAP = " […] "
"""Stands where the middle of a message was cut out."""


class PromptTooLongError(ValueError):
    """A prompt does not fit even without its last user message."""


class PromptEncoder:
    """Applies one tokenizer's chat template."""

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]

    def encode(self, messages: Sequence[Message], room: int) -> tuple[tuple[int, ...], int]:
        """The prompt's tokens, `room` at most, and how many tokens of the last user message were cut out.

        Instructions stand first or last in a message, and few-shot examples before it, so it is the middle that goes.
        Raises PromptTooLongError, or ValueError where the model's template refuses the messages.
        """
        tokens = self._apply(messages)
        if len(tokens) <= room:
            return tokens, 0
        last = max((index for index, message in enumerate(messages) if message.role == "user"), default=None)
        if last is None:
            raise PromptTooLongError(f"the prompt has {len(tokens)} tokens, {room} fit, and no user message can be cut")
        content = self._tokenizer.encode(self._harmless(messages[last].content), add_special_tokens=False)
        keep = len(content) - (len(tokens) - room)
        while keep > 0:  # pieces may need a few more tokens than they had inside the whole
            half = keep // 2
            cut = self._text(content[: keep - half]) + GAP + self._text(content[len(content) - half :])
            shorter = self._apply([*messages[:last], Message("user", cut), *messages[last + 1 :]])
            if len(shorter) <= room:
                return shorter, len(content) - keep
            keep -= len(shorter) - room
        raise PromptTooLongError(f"the prompt without its last user message is longer than the {room} tokens that fit")

    def label(self, text: str) -> list[int]:
        """The tokens of a reply that is `text`."""
        return list(self._tokenizer.encode(self._harmless(text), add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a reply."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _apply(self, messages: Sequence[Message]) -> tuple[int, ...]:
        chat = [{"role": message.role, "content": self._harmless(message.content)} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        except jinja2.TemplateError as error:
            raise ValueError(f"the model's chat template refuses the messages: {error}") from error
        tokens = tuple(self._tokenizer.encode(text, add_special_tokens=False))
        if not tokens:
            raise ValueError("the model's chat template makes an empty prompt of the messages")
        return tokens

    def _harmless(self, text: str) -> str:
        """Text in which no control token is left: a row that says `<|im_end|>` must not end its own message."""
        text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates can't be tokenised
        for token in self._special:
            if token in text:
                text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text

    def _text(self, tokens: Sequence[int]) -> str:
        """Part of a text; a character cut in two is left out."""
        return str(self._tokenizer.decode(list(tokens))).strip("\ufffd")
