"""Texts and chats become tokens; of chats only the assistant's are trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bqbuild.core.errors import BuildError
from bqbuild.train.documents import chat_documents, text_documents
from bqbuild.train.language_model import open_tokenizer
from tests.train.tiny import write_tokenizer

CHAT = [
    {"role": "user", "content": "What boils?"},
    {"role": "assistant", "content": "Water."},
    {"role": "user", "content": "And rusts?"},
    {"role": "assistant", "content": "Iron."},
]


def test_a_text_ends_with_the_end_token_once(tmp_path: Path) -> None:
    tokenizer = open_tokenizer(write_tokenizer(tmp_path))
    documents = list(text_documents(tokenizer, ["Iron rusts.", "", "Water.<|end|>"]))
    assert [tokenizer.decode(document.tokens) for document in documents] == ["Iron rusts.<|end|>", "Water.<|end|>"]


@pytest.mark.parametrize("chat", [CHAT, json.dumps(CHAT)], ids=["list", "json"])
def test_only_what_the_assistant_says_is_trained_on(tmp_path: Path, chat: object) -> None:
    tokenizer = open_tokenizer(write_tokenizer(tmp_path))
    (document,) = chat_documents(tokenizer, [chat])
    assert document.trained is not None
    trained = [token for token, flag in zip(document.tokens, document.trained, strict=True) if flag]
    assert tokenizer.decode(trained) == "Water.<|end|>Iron.<|end|>"
    assert tokenizer.decode(document.tokens) == tokenizer.apply_chat_template(CHAT, tokenize=False)


@pytest.mark.parametrize(
    "chat", ["{", "[]", "7", [{"role": "robot", "content": "x"}], [{"role": "user", "content": None}]]
)
def test_what_is_no_chat_is_an_error_that_shows_one(tmp_path: Path, chat: object) -> None:
    tokenizer = open_tokenizer(write_tokenizer(tmp_path))
    with pytest.raises(BuildError, match="chat"):
        list(chat_documents(tokenizer, [chat]))


def test_a_tokenizer_without_a_chat_template_cannot_read_chats(tmp_path: Path) -> None:
    tokenizer = open_tokenizer(write_tokenizer(tmp_path))
    tokenizer.chat_template = None
    with pytest.raises(BuildError, match="chat template"):
        list(chat_documents(tokenizer, [CHAT]))
