"""From texts and chats to tokens. A text is trained on whole; of a chat only what the assistant says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from bqbuild.core.errors import BuildError
from bqbuild.train.packing import Document

ROLES = ("system", "user", "assistant", "tool")


def text_documents(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterator[Document]:
    """A document a text: the tokenizer's own special tokens, and its end-of-text token last. Empty texts make none."""
    kept = [text for text in texts if text]
    if not kept:
        return
    end = tokenizer.eos_token_id
    for tokens in tokenizer(kept, return_attention_mask=False, verbose=False)["input_ids"]:
        closed = end is None or (tokens and tokens[-1] == end)
        yield Document(tokens=tokens if closed else [*tokens, end])


def chat_documents(tokenizer: PreTrainedTokenizerBase, chats: Sequence[object]) -> Iterator[Document]:
    """A document a chat, through the tokenizer's chat template; the tokens of assistant turns are trained on.

    A chat is a list of {role, content}, or the JSON text of one. Raises BuildError for anything else, and where the
    tokenizer has no chat template.
    """
    if tokenizer.chat_template is None:
        raise BuildError("the tokenizer has no chat template", hint="render the chat into a text column instead")
    for chat in chats:
        yield _chat_document(tokenizer, _messages(chat))


def _chat_document(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> Document:
    """Renders the chat up to each turn: what an assistant's turn adds to the prompt before it is what it says."""
    whole = _rendered(tokenizer, messages)
    spoken: list[tuple[int, int]] = []
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            before = _rendered(tokenizer, messages[:number], add_generation_prompt=True)
            until = _rendered(tokenizer, messages[: number + 1])
            if not (until.startswith(before) and whole.startswith(until)):
                raise BuildError("the chat template rewrites earlier turns, so assistant turns cannot be told apart")
            spoken.append((len(before), len(until)))
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    trained = [
        any(begin < end and start < end <= stop for start, stop in spoken) for begin, end in encoded["offset_mapping"]
    ]
    return Document(tokens=encoded["input_ids"], trained=trained)


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, add_generation_prompt: bool = False
) -> str:
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        raise BuildError(f"the chat template refuses a chat: {error}") from error
    return str(text)


def _messages(chat: object) -> list[dict[str, str]]:
    value: Any = chat
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise BuildError(f"a chat is not JSON: {error}") from error
    if not isinstance(value, list) or not value or not all(_is_message(message) for message in value):
        raise BuildError(
            f"not a chat: {str(chat)[:80]!r}",
            hint='a chat is a list like [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]',
        )
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and value.get("role") in ROLES and isinstance(value.get("content"), str)
