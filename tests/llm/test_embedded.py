"""The provider `embedded`: mechanics on a tiny model, and what the real one must be able to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bqbuild.config.specs import ConnectionSpec, OutputSpec
from bqbuild.core.errors import ProjectError, ProviderError
from bqbuild.core.records import ChatReply, ChatRequest, Constraint, Message
from bqbuild.llm.base import Provider
from bqbuild.llm.embedded import EmbeddedKind
from bqbuild.llm.parsing import constraint_for, parse_reply
from bqbuild.llm.weights import resolve_weights
from tests.llm.tiny import write_tiny_model

PAIR = OutputSpec.model_validate({"format": "json", "columns": {"question": "string", "answer": "string"}})
SUBJECTS = ("mathematics", "physics", "chemistry", "biology", "computer_science")
SORTED = (
    ("The angles of a triangle add up to 180 degrees.", "mathematics"),
    ("A magnet attracts iron. Two north poles push each other away.", "physics"),
    ("Iron rusts because it reacts with oxygen and water.", "chemistry"),
    ("Bees carry pollen from one flower to another.", "biology"),
    ("A stack gives back the item that was put on it last.", "computer_science"),
)


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def real() -> Iterator[Provider]:
    """SmolLM2-135M-Instruct, loaded once; skipped only where its weights are not on this machine."""
    try:
        resolve_weights("embedded")
    except ProjectError as error:
        pytest.skip(str(error))
    provider = EmbeddedKind().open(ConnectionSpec(provider="embedded", model="embedded"), pytest.fail)
    yield provider
    asyncio.run(provider.close())


def connection(path: Path, **more) -> ConnectionSpec:
    return ConnectionSpec(provider="embedded", model=str(path), **more)


def ask_all(provider: Provider, requests: Sequence[ChatRequest]) -> list[ChatReply | BaseException]:
    """All requests at once; their replies or errors in order."""

    async def ask() -> list[ChatReply | BaseException]:
        return await asyncio.gather(*map(provider.chat, requests), return_exceptions=True)

    return asyncio.run(ask())


def replies(provider: Provider, requests: Sequence[ChatRequest]) -> list[ChatReply]:
    answers = ask_all(provider, requests)
    assert all(isinstance(answer, ChatReply) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, ChatReply)]


def say(text: str, **params) -> ChatRequest:
    return ChatRequest((Message("user", text),), {"max_tokens": 10, "temperature": 1.0, **params})


@pytest.fixture
def tiny_provider(tiny_path: Path) -> Iterator[Provider]:
    provider = EmbeddedKind().open(connection(tiny_path), pytest.fail)
    yield provider
    asyncio.run(provider.close())


def test_the_identity_is_of_content_and_not_of_path_or_name(tiny_path: Path, tmp_path: Path):
    kind = EmbeddedKind()
    copy = write_tiny_model(tmp_path / "copy")
    assert kind.identity(connection(copy)) == kind.identity(connection(tiny_path, threads=1, batch_size=3))
    assert kind.identity(connection(copy, context=64)) != kind.identity(connection(copy))


def test_a_schema_is_sent_unless_the_connection_says_no(tiny_path: Path):
    assert EmbeddedKind().constrains(connection(tiny_path))
    assert not EmbeddedKind().constrains(connection(tiny_path, constrain=False))


def test_opening_what_is_not_there_is_a_mistake_in_the_project(tmp_path: Path):
    with pytest.raises(ProjectError):
        EmbeddedKind().open(connection(tmp_path / "nothing"), pytest.fail)


def test_the_same_request_has_the_same_reply_in_any_company(tiny_path: Path, tiny_provider: Provider):
    mine = say("What is iron?", max_tokens=30)
    (alone,) = replies(tiny_provider, [mine])
    crowd = [say(f"Row {row}", max_tokens=5 + row) for row in range(20)]
    assert replies(tiny_provider, [*crowd[:10], mine, *crowd[10:]])[10] == alone


def test_another_sample_or_seed_is_another_draw(tiny_provider: Provider):
    mine = say("What is iron?", max_tokens=30)
    other_sample = ChatRequest(mine.messages, mine.params, sample=1)
    other_seed = ChatRequest(mine.messages, {**mine.params, "seed": 7})
    assert len({reply.text for reply in replies(tiny_provider, [mine, other_sample, other_seed])}) == 3


def test_tokens_are_counted_and_the_weights_are_the_fingerprint(tiny_path: Path, tiny_provider: Provider):
    (reply,) = replies(tiny_provider, [say("Hi", max_tokens=4)])
    assert reply.finish_reason in ("stop", "length")
    assert reply.output_tokens <= 4
    assert reply.input_tokens > len("user\nHi")
    assert reply.fingerprint == EmbeddedKind().identity(connection(tiny_path))["weights"]


@pytest.mark.parametrize("params", [{"temperature": "hot"}, {"stop": 3}, {"max_tokens": -1}])
def test_a_parameter_that_makes_no_sense_fails_that_request_alone(tiny_provider: Provider, params: dict):
    bad, good = ask_all(tiny_provider, [say("a", **params), say("b")])
    assert isinstance(bad, ProviderError)
    assert (bad.kind, bad.retryable) == ("request", False)
    assert isinstance(good, ChatReply)


def test_an_unknown_parameter_is_named_once(tiny_path: Path):
    warnings: list[str] = []
    provider = EmbeddedKind().open(connection(tiny_path), warnings.append)
    replies(provider, [say("a", logit_bias={}), say("b", logit_bias={})])
    asyncio.run(provider.close())
    assert len(warnings) == 1
    assert "logit_bias" in warnings[0]


def test_a_prompt_that_is_too_long_is_shortened_with_a_warning(tiny_path: Path):
    warnings: list[str] = []
    provider = EmbeddedKind().open(connection(tiny_path, context=120), warnings.append)
    got = replies(provider, [say("x" * 300, max_tokens=10), say("y" * 300, max_tokens=10)])
    asyncio.run(provider.close())
    assert all(reply.input_tokens <= 110 for reply in got)
    assert len(warnings) == 1
    assert "longer than the context of 120 tokens" in warnings[0]


def test_a_prompt_that_cannot_be_shortened_enough_is_refused(tiny_path: Path):
    provider = EmbeddedKind().open(connection(tiny_path, context=64), pytest.fail)
    (error,) = ask_all(provider, [ChatRequest((Message("system", "s" * 200), Message("user", "hi")))])
    asyncio.run(provider.close())
    assert isinstance(error, ProviderError)
    assert error.kind == "request"


def test_a_model_without_a_chat_template_says_so(tmp_path: Path):
    provider = EmbeddedKind().open(connection(write_tiny_model(tmp_path / "base", chat_template=None)), pytest.fail)
    (error,) = ask_all(provider, [say("hi")])
    asyncio.run(provider.close())
    assert isinstance(error, ProviderError)
    assert "chat template" in str(error)


def test_damaged_weights_fail_every_request_with_a_clear_message(tmp_path: Path):
    folder = write_tiny_model(tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00garbage")
    provider = EmbeddedKind().open(connection(folder), pytest.fail)
    errors = ask_all(provider, [say("a"), say("b")]) + ask_all(provider, [say("c")])
    asyncio.run(provider.close())
    assert all(isinstance(error, ProviderError) and "failed" in error.message for error in errors)


def test_connections_to_the_same_weights_share_one_model(tiny_path: Path):
    first, second = (EmbeddedKind().open(connection(tiny_path), pytest.fail) for _ in range(2))
    replies(first, [say("a")])
    asyncio.run(first.close())
    (reply,) = replies(second, [say("a")])
    asyncio.run(second.close())
    assert reply.text
    (error,) = ask_all(second, [say("a")])
    assert isinstance(error, ProviderError)


def test_requests_that_are_open_when_the_provider_closes_end_with_an_error(tiny_path: Path):
    async def close_early() -> list[ChatReply | BaseException]:
        provider = EmbeddedKind().open(connection(tiny_path, batch_size=1), pytest.fail)
        open_requests = [asyncio.ensure_future(provider.chat(say(f"{n}", max_tokens=200))) for n in range(20)]
        await asyncio.sleep(0)
        await provider.close()
        return await asyncio.gather(*open_requests, return_exceptions=True)

    assert any(
        isinstance(answer, ProviderError) and answer.kind == "transport" for answer in asyncio.run(close_early())
    )


def test_a_caller_that_gives_up_disturbs_nobody(tiny_path: Path, tiny_provider: Provider):
    async def give_up() -> ChatReply:
        lost = asyncio.ensure_future(tiny_provider.chat(say("a", max_tokens=100)))
        kept = asyncio.ensure_future(tiny_provider.chat(say("b", max_tokens=20)))
        await asyncio.sleep(0)
        lost.cancel()
        return await kept

    assert asyncio.run(give_up()).output_tokens > 0


def test_the_real_model_answers(real: Provider):
    request = ChatRequest((Message("user", "What is the capital of France?"),), {"max_tokens": 30, "temperature": 0})
    (reply,) = replies(real, [request])
    assert "Paris" in reply.text
    assert reply.finish_reason == "stop"
    assert "<|im_end|>" not in reply.text


def test_the_real_model_writes_json_that_parses(real: Provider):
    examples = (
        ("Water boils at 100 degrees at sea level.", "At what temperature does water boil?", "At 100 degrees."),
        ("The heart pumps blood.", "What does the heart do?", "The heart pumps blood through the body."),
    )
    start = [Message("system", "You write a study question with its answer, as JSON.")]
    for text, question, answer in examples:
        start += [Message("user", f"Text: {text}")]
        start += [Message("assistant", json.dumps({"question": question, "answer": answer}))]
    texts = (
        "Light travels faster than sound.",
        "Iron rusts in wet air.",
        "Plants take in carbon dioxide.",
        "Ice floats.",
    )
    params = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 160}
    asked = [
        ChatRequest((*start, Message("user", f"Text: {text}")), params, constraint=constraint_for(PAIR))
        for text in texts
    ]
    whole = [reply for reply in replies(real, asked) if reply.finish_reason == "stop"]
    assert len(whole) >= 3
    for reply in whole:
        (item,) = parse_reply(reply, PAIR).items
        assert item["question"]
        assert item["answer"]


def test_the_real_model_sorts_easy_texts(real: Provider):
    easy = {
        "The derivative of x squared is 2x.": "mathematics",
        "Sodium chloride dissolves in water as ions.": "chemistry",
        "Plants use chlorophyll to capture light.": "biology",
        "A hash table finds an item by its key.": "computer_science",
        "The electric current is 3 amperes.": "physics",
        "Enzymes digest proteins in the stomach.": "biology",
    }
    start = [Message("system", "Name the subject of a text.")]
    for text, label in SORTED:
        start += [Message("user", f"{text}\n\nSubject:"), Message("assistant", label)]
    asked = [
        ChatRequest((*start, Message("user", f"{text}\n\nSubject:")), constraint=Constraint(choices=SUBJECTS))
        for text in easy
    ]
    got = [reply.text for reply in replies(real, asked)]
    assert set(got) <= set(SUBJECTS)
    assert sum(mine == right for mine, right in zip(got, easy.values(), strict=True)) >= 5
