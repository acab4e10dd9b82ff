"""Replies that come in pieces, however a network cuts them and whatever a server does to them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqbuild.core.errors import ProviderError
from bqbuild.core.records import ChatReply
from bqbuild.llm.streamed import StreamedReply
from tests.llm.bench import Bench, with_bench
from tests.llm_server import Fault, LlmServer, events

COMPLETION = {
    "id": "1",
    "model": "m-1",
    "system_fingerprint": "fp",
    "choices": [
        {
            "message": {"reasoning_content": "Hm, well.", "content": "Ein schöner Tag, 晴れ 😀 ."},
            "finish_reason": "length",
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}
WHOLE = b"".join(events(COMPLETION))
REPLY = ChatReply("Ein schöner Tag, 晴れ 😀 .", "Hm, well.", "length", 3, 4, "m-1", "fp")


def read(*parts: bytes) -> ChatReply:
    pieces = StreamedReply()
    for part in parts:
        pieces.feed(part)
    return pieces.reply()


def delta(text: str, **rest: object) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"delta": {"content": text}, **rest}]}) + b"\n\n"


@given(st.lists(st.integers(0, len(WHOLE)), max_size=20))
def test_it_does_not_matter_where_the_network_cuts(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(WHOLE)]
    assert read(*(WHOLE[start:end] for start, end in pairwise(places))) == REPLY


def test_one_byte_at_a_time_and_other_ends_of_lines_are_fine() -> None:
    assert read(*(WHOLE[place : place + 1] for place in range(len(WHOLE)))) == REPLY
    assert read(WHOLE.replace(b"\n", b"\r\n")) == REPLY
    assert read(b": keep-alive\n\nevent: message\nid: 7\nretry: 3\n" + WHOLE) == REPLY
    assert read(WHOLE.replace(b"data: ", b"data:")) == REPLY
    assert read(WHOLE.replace(b"\n\n", b"\n")) == REPLY
    assert read(b'data: {"choices": [{"delta":\ndata: {"content": "a"}}]}\n\ndata: [DONE]\n\n').text == "a"


def test_halves_of_a_character_in_two_events_are_one_again() -> None:
    halves = rb'data: {"choices":[{"delta":{"content":"\ud83d"}}]}' + b"\n\n"
    halves += rb'data: {"choices":[{"delta":{"content":"\ude00"}}]}' + b"\n\n"
    assert read(halves, b"data: [DONE]\n\n").text == "😀"
    assert read(halves[: len(halves) // 2], b"data: [DONE]\n\n").text == "\ufffd"


def test_the_end_is_a_finish_reason_or_the_word_done() -> None:
    assert read(delta("a", finish_reason="stop")).text == "a"
    assert read(delta("a") + b"data: [DONE]").text == "a"
    with pytest.raises(ProviderError, match="broke off") as caught:
        read(delta("a"))
    assert (caught.value.kind, caught.value.retryable) == ("transport", True)
    with pytest.raises(ProviderError, match="broke off"):
        read()


def test_odd_events_are_passed_over() -> None:
    odd = [b"[]", b"5", b'{"choices": null}', b'{"choices": [null, {"delta": null}]}', b'{"choices": [{"index": 1}]}']
    lines = b"".join(b"data: " + event + b"\n\n" for event in odd)
    assert read(lines + delta("a", finish_reason="stop")) == ChatReply("a")


def test_a_refusal_is_one_in_pieces_too() -> None:
    event = {"choices": [{"delta": {"refusal": "I will not."}, "finish_reason": "stop"}]}
    assert read(b"data: " + orjson.dumps(event) + b"\n\n") == ChatReply("I will not.", finish_reason="refusal")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'data: {"error": {"message": "overloaded", "code": 503}}\n\n', "server"),
        (b'data: {"error": {"message": "slow down", "code": 429}}\n\n', "rate_limit"),
        (b'data: {"error": "out of memory"}\n\n', "server"),
        (b"data: {broken\n\n", "reply"),
    ],
)
def test_an_error_in_the_midst_of_a_stream_ends_it(data: bytes, kind: str) -> None:
    with pytest.raises(ProviderError) as caught:
        read(delta("a"), data)
    assert (caught.value.kind, caught.value.retryable) == (kind, True)


def test_a_streamed_reply_is_the_reply_that_would_have_come_whole(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        record = await bench.ask("hello")
        assert bench.recorded([record.key])[record.key].reply.text == record.reply.text
        llm_server.requests[0].pop("stream")
        assert llm_server.requests[0].pop("stream_options") == {"include_usage": True}
        assert record.reply.text == llm_server.answer(llm_server.requests[0] | streaming)
        assert (record.reply.input_tokens, record.reply.output_tokens) == (1, 2)
        assert (record.reply.model, record.reply.fingerprint) == ("m", "fp-1")

    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    with_bench(tmp_path, check, base_url=llm_server.url, stream=True)


def test_long_replies_are_streamed_unless_the_connection_says_otherwise(tmp_path: Path, llm_server: LlmServer) -> None:
    async def ask(bench: Bench) -> None:
        for number, most in enumerate((100, 4096)):
            await bench.ask(f"question {number}", params={"max_tokens": most})

    with_bench(tmp_path / "1", ask, base_url=llm_server.url)
    with_bench(tmp_path / "2", ask, base_url=llm_server.url, stream=False)
    assert ["stream" in body for body in llm_server.requests] == [False, True, False, False]


BROKEN = {
    "cut": Fault(cut="middle"),
    "an error in it": Fault(pieces=[delta("a"), b'data: {"error": {"message": "overloaded"}}\n\n']),
    "no end": Fault(pieces=[delta("a")]),
    "garbage": Fault(pieces=[b"data: {\n\n"]),
    "silence": Fault(pieces=[delta("a"), delta("b"), delta("c")], drip=30),
}


@pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_stream_is_sent_again(fault: Fault, tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.faults.append(fault)

    async def check(bench: Bench) -> None:
        assert (await bench.ask("hello")).reply.text.startswith("Answer ")
        assert len(llm_server.requests) == 2

    with_bench(tmp_path, check, base_url=llm_server.url, stream=True, read_timeout=0.3)


def test_a_stream_may_take_longer_than_the_time_out_of_a_whole_reply(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.faults.append(Fault(drip=0.2))
    llm_server.answer = lambda body: "a b c d e"

    async def check(bench: Bench) -> None:
        assert (await bench.ask("hello")).reply.text == "a b c d e"
        assert len(llm_server.requests) == 1

    with_bench(tmp_path, check, base_url=llm_server.url, stream=True, timeout=1.0)


def test_a_stream_that_drips_for_ever_ends_with_the_total_time(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.faults.append(Fault(pieces=[b": ping\n\n"] * 1000, drip=0.05))

    async def check(bench: Bench) -> None:
        with pytest.raises(ProviderError, match=r"no answer .* within 0\.5 s") as caught:
            await bench.ask("hello")
        assert caught.value.kind == "timeout"

    with_bench(tmp_path, check, base_url=llm_server.url, stream=True, total_timeout=0.5)


def test_a_reply_whose_connection_breaks_after_its_end_is_kept(tmp_path: Path, llm_server: LlmServer) -> None:
    """The finish reason has come, the usage and the end have not."""
    pieces = [delta("all", finish_reason="stop"), *[b": late\n\n"] * 3]
    llm_server.faults.append(Fault(pieces=pieces, cut="middle"))

    async def check(bench: Bench) -> None:
        assert (await bench.ask("hello")).reply.text == "all"
        assert len(llm_server.requests) == 1

    with_bench(tmp_path, check, base_url=llm_server.url, stream=True)


def test_a_server_that_does_not_stream_is_understood_and_one_that_refuses_to_is_asked_once(
    tmp_path: Path, llm_server: LlmServer
) -> None:
    llm_server.streams = False

    async def check(bench: Bench) -> None:
        assert (await bench.ask("hello")).reply.text
        said = b'{"error": {"message": "Unrecognized request argument: stream_options"}}'
        llm_server.faults.append(Fault(status=400, body=said))
        for number in range(3):
            assert (await bench.ask(f"question {number}")).reply.text
        assert ["stream" in body for body in llm_server.requests] == [True, True, False, False, False]
        assert len(bench.warnings) == 1
        assert bench.client.usage("writer").retries == 0

    with_bench(tmp_path, check, base_url=llm_server.url, stream=True)


def test_a_key_in_a_stream_reaches_no_record(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.answer = lambda body: "it is sk-secret-123456 indeed"

    async def check(bench: Bench) -> None:
        assert (await bench.ask("hello")).reply.text == "it is *** indeed"

    with_bench(tmp_path, check, base_url=llm_server.url, stream=True, api_key="sk-secret-123456")
