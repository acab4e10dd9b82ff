"""OpenAI's wire format, without a wire."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from bqbuild.core.errors import ProviderError
from bqbuild.core.records import ChatReply, ChatRequest, Constraint, Message
from bqbuild.llm.chat_format import (
    error_message,
    is_about_format,
    rate_limit_reset,
    read_failure,
    read_refusal,
    read_reply,
    request_body,
    retry_after_seconds,
)

MESSAGES = (Message("system", "s"), Message("user", "\u00fc"))


def body(request: ChatRequest, constrained: bool = True) -> Any:
    return orjson.loads(request_body("m", request, constrained=constrained))


def reply(**message: Any) -> bytes:
    return orjson.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})


def test_a_body_holds_the_model_the_messages_and_every_parameter() -> None:
    assert body(ChatRequest(MESSAGES, {"temperature": 0.5, "top_k": 3})) == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "\u00fc"}],
        "temperature": 0.5,
        "top_k": 3,
    }


def test_a_seed_is_shifted_by_the_sample_so_that_samples_differ() -> None:
    assert [body(ChatRequest(MESSAGES, {"seed": 7}, sample=sample))["seed"] for sample in (0, 1, 2)] == [7, 8, 9]


def test_a_constraint_becomes_a_strict_schema_and_labels_an_enum() -> None:
    sent = body(ChatRequest(MESSAGES, constraint=Constraint(json_schema={"type": "object"})))["response_format"]
    assert sent == {
        "type": "json_schema",
        "json_schema": {"name": "output", "schema": {"type": "object"}, "strict": True},
    }
    choice = ChatRequest(MESSAGES, constraint=Constraint(choices=("a", "b")))
    schema = body(choice)["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"label": {"type": "string", "enum": ["a", "b"]}}
    assert "response_format" not in body(choice, constrained=False)


def test_what_orjson_cannot_write_is_sent_all_the_same() -> None:
    sent = body(ChatRequest((Message("user", "a\ud800"),), {"x": 1.5}))
    assert sent["messages"][0]["content"] == "a\ufffd"
    assert b'"big":100000000000000000000' in request_body(
        "m", ChatRequest((), {"big": 10**20}), constrained=False
    ).replace(b" ", b"")


def test_a_whole_reply_is_read() -> None:
    data = {
        "model": "m-1",
        "system_fingerprint": "fp",
        "choices": [{"message": {"content": "hi", "reasoning_content": "hm"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    assert read_reply(orjson.dumps(data)) == ChatReply("hi", "hm", "length", 3, 4, "m-1", "fp")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": None}, ChatReply("")),
        ({}, ChatReply("")),
        ({"content": None, "refusal": "I will not."}, ChatReply("I will not.", finish_reason="refusal")),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"text": "b"}]}, ChatReply("ab")),
        ({"content": 5}, ChatReply("")),
        ({"content": "a", "reasoning": "b"}, ChatReply("a", "b")),
    ],
)
def test_odd_messages_are_read_for_what_they_hold(message: dict[str, Any], expected: ChatReply) -> None:
    assert read_reply(reply(**message)) == expected


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": "3", "completion_tokens": None}, {"prompt_tokens": -1}])
def test_missing_or_odd_usage_counts_nothing(usage: Any) -> None:
    data = {"choices": [{"message": {"content": "a"}}], "usage": usage}
    assert read_reply(orjson.dumps(data)) == ChatReply("a")


def test_broken_text_is_repaired_rather_than_paid_for_again() -> None:
    assert read_reply(b'{"choices":[{"message":{"content":"a\\ud800b"}}]}').text == "a\ufffdb"
    assert read_reply(b'{"choices":[{"message":{"content":"a\xffb"}}]}').text == "a\ufffdb"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>busy</html>",
        b'{"choices": [',
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"choices": []}',
        b'{"choices": [null]}',
        b'{"choices": [{"text": "old"}]}',
        b'{"choices": {"0": 1}}',
        b'{"error": {"message": "overloaded"}}',
        b"[" * 100_000,
        b"\x00\xff",
    ],
)
def test_anything_else_is_no_reply_and_worth_another_try(data: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        read_reply(data)
    assert (caught.value.kind, caught.value.retryable) == ("reply", True)


@pytest.mark.parametrize(
    ("status", "message", "kind", "retryable"),
    [
        (401, "", "auth", False),
        (403, "no access", "auth", False),
        (403, "input was flagged by moderation", "request", False),
        (402, "Insufficient Balance", "auth", False),
        (429, "slow down", "rate_limit", True),
        (429, "you exceeded your current quota", "auth", False),
        (400, "too long", "request", False),
        (422, "bad value", "request", False),
        (404, "no such model", "setup", True),
        (302, "", "setup", True),
        (408, "", "server", True),
        (500, "", "server", True),
        (503, "", "server", True),
        (529, "", "server", True),
    ],
)
def test_a_status_says_what_went_wrong_and_whether_to_try_again(
    status: int, message: str, kind: str, retryable: bool
) -> None:
    failure = read_failure(status, message, None)
    assert (failure.kind, failure.retryable) == (kind, retryable)
    assert str(status) in failure.message
    assert message in failure.message


NOW = 1_000_000_000.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After": "Sun, 09 Sep 2001 01:46:50 GMT"}, 10.0),
        ({"Retry-After": "Sun, 09 Sep 2001 01:46:30 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "1e999"}, None),
        ({"Retry-After": "Sun, 99 Sep 99999 01:46:30 GMT"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_seconds(headers, NOW) == expected


@pytest.mark.parametrize(
    ("reset", "expected"),
    [("1s", 1.0), ("6m0s", 360.0), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("7", 7.0), ("", None), ("soon", None)],
)
def test_the_reset_of_a_quota_is_read_as_it_is_written(reset: str, expected: float | None) -> None:
    assert rate_limit_reset({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": reset}) == expected
    assert rate_limit_reset({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": reset}) is None


@pytest.mark.parametrize(
    ("status", "body", "is_one"),
    [
        (400, b'{"error": {"code": "content_filter", "message": "no"}}', True),
        (400, b'{"error": {"type": "content_policy_violation", "message": "no"}}', True),
        (400, b'{"error": {"code": "context_length_exceeded"}}', False),
        (429, b'{"error": {"code": "content_filter"}}', False),
        (400, b'{"error": "content_filter"}', False),
        (400, b"content_filter", False),
    ],
)
def test_a_content_filter_is_told_from_a_bad_request(status: int, body: bytes, is_one: bool) -> None:
    assert (read_refusal(status, body) is not None) == is_one


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"error": {"message": "bad", "type": "x"}}', "bad"),
        (b'{"error": "bad"}', "bad"),
        (b'{"message": "bad"}', "bad"),
        (b'{"detail": [{"msg": "bad"}]}', '[{"msg": "bad"}]'),
        (b"plain", "plain"),
        (b"<html><h1>502 Bad Gateway</h1></html>", "502 Bad Gateway"),
        (b"", ""),
    ],
)
def test_the_message_of_an_error_is_found(data: bytes, expected: str) -> None:
    assert error_message(data).strip() == expected


def test_refusals_of_a_schema_are_told_from_other_refusals() -> None:
    assert is_about_format(400, "'response_format' of type json_schema is not supported")
    assert is_about_format(500, "guided decoding is disabled")
    assert not is_about_format(400, "max_tokens is too large")
    assert not is_about_format(429, "response_format")
