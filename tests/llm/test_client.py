"""The client: each call once, recorded before it counts, and no key anywhere."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bqbuild.core.errors import ProjectError, ProviderError, StoreError
from bqbuild.core.records import CallRecord, ChatReply, ChatRequest, Message
from bqbuild.llm.client import ConnectionDown, Usage, call_cost
from bqbuild.llm.keys import call_key
from tests.llm.bench import Bench, with_bench
from tests.llm_server import Fault, LlmServer

KEY = "sk-secret-123456"


def test_a_call_is_in_the_log_when_it_returns(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        record = await bench.ask("hello", params={"temperature": 0.5})
        assert bench.recorded([record.key]) == {record.key: record}
        assert record.reply.text.startswith("Answer ")
        assert (record.llm, record.identity, record.reply.model) == ("writer", {"model": "m"}, "m")
        assert llm_server.requests == [
            {"model": "m", "messages": [{"role": "user", "content": "hello"}], "temperature": 0.5}
        ]

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_equal_calls_in_flight_are_sent_once_and_samples_are_calls_of_their_own(
    tmp_path: Path, llm_server: LlmServer
) -> None:
    async def check(bench: Bench) -> None:
        same = await asyncio.gather(*(bench.ask("hello") for _ in range(20)))
        assert len(llm_server.requests) == 1
        assert all(record is same[0] for record in same)
        await asyncio.gather(*(bench.ask("hello", sample=sample) for sample in (1, 2)))
        assert len(llm_server.requests) == 3
        assert bench.client.usage("writer").shared == 19

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_a_shared_failure_is_everybodys_and_the_next_call_is_sent_again(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        llm_server.faults.append(Fault(status=400))
        results = await bench.ask_all(["hello"] * 5)
        assert all(isinstance(result, ProviderError) and result.kind == "request" for result in results)
        assert len(llm_server.requests) == 1
        assert (await bench.ask("hello")).reply.text

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_when_the_first_of_equal_calls_is_cancelled_another_makes_the_call(
    tmp_path: Path, llm_server: LlmServer
) -> None:
    async def check(bench: Bench) -> None:
        llm_server.faults.append(Fault(delay=5))
        first = asyncio.create_task(bench.ask("hello"))
        second = asyncio.create_task(bench.ask("hello"))
        while not llm_server.requests:
            await asyncio.sleep(0.01)
        first.cancel()
        assert (await second).reply.text
        assert len(llm_server.requests) == 2

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_tokens_and_cost_are_counted_from_usage_and_price(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        record = await bench.ask("three little words")
        assert (record.reply.input_tokens, record.reply.output_tokens) == (3, 2)
        assert record.cost == pytest.approx((3 * 0.5 + 2 * 2.0) / 1e6)
        usage = bench.client.usage("writer")
        assert (usage.requests, usage.answered, usage.input_tokens, usage.output_tokens) == (1, 1, 3, 2)
        assert usage.cost == record.cost
        assert bench.client.usage("other") == Usage()

    with_bench(tmp_path, check, base_url=llm_server.url, price={"input": 0.5, "output": 2.0})


def test_a_reply_without_usage_costs_nothing(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.faults.append(Fault(edit=lambda body: {**body, "usage": None}))

    async def check(bench: Bench) -> None:
        assert (await bench.ask("hello")).cost == 0
        assert call_cost(bench.spec.price, ChatReply("x", input_tokens=1_000_000)) == 1.0

    with_bench(tmp_path, check, base_url=llm_server.url, price={"input": 1.0, "output": 1.0})


def test_a_refused_key_gives_the_connection_up_and_is_never_shown(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.api_key = "another"  # the server says back the key that it was sent

    async def check(bench: Bench) -> None:
        with pytest.raises(ConnectionDown, match="connection `writer` is given up") as caught:
            await bench.ask("hello")
        assert caught.value.kind == "auth"
        assert "401" in caught.value.message
        with pytest.raises(ConnectionDown):
            await bench.ask("again")
        assert len(llm_server.requests) == 1
        assert llm_server.headers[0]["Authorization"] == f"Bearer {KEY}"
        seen = [
            str(caught.value),
            repr(caught.value),
            repr(caught.value.__dict__),
            repr(bench.spec),
            repr(bench.client),
        ]
        assert not [text for text in (*seen, *bench.warnings) if KEY in text]
        assert caught.value.__context__ is None or KEY not in repr(caught.value.__context__)

    with_bench(tmp_path, check, base_url=llm_server.url, api_key=KEY)


def test_a_key_that_a_server_writes_into_its_answers_reaches_no_record(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.answer = lambda body: f"your key is {KEY}"

    async def check(bench: Bench) -> None:
        record = await bench.ask("hello")
        assert record.reply.text == "your key is ***"

    with_bench(tmp_path, check, base_url=llm_server.url, api_key=KEY)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_key_revoked_half_way_keeps_what_was_answered(tmp_path: Path, llm_server: LlmServer) -> None:
    def revoke(body: object, number: int) -> None:
        if number == 10:
            llm_server.api_key = "another"

    llm_server.api_key = KEY
    llm_server.fault = revoke

    async def check(bench: Bench) -> None:
        results = await bench.ask_all([f"question {number}" for number in range(30)])
        answered = [result for result in results if isinstance(result, CallRecord)]
        assert 9 <= len(answered) < 30
        assert all(isinstance(result, ConnectionDown) for result in results if not isinstance(result, CallRecord))
        assert len(bench.recorded([record.key for record in answered])) == len(answered)

    with_bench(tmp_path, check, base_url=llm_server.url, api_key=KEY, max_concurrency=2)


def test_draining_lets_calls_end_and_sends_nothing_new_retries_included(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.fault = lambda body, number: Fault(delay=0.3, status=503 if number == 1 else 200)

    async def check(bench: Bench) -> None:
        running = [asyncio.create_task(bench.ask(f"question {number}")) for number in range(6)]
        while bench.client.under_way < 2 or len(llm_server.requests) < 2:
            await asyncio.sleep(0.005)
        await bench.client.drain()
        assert len(llm_server.requests) == 2
        late = asyncio.create_task(bench.ask("late"))
        await asyncio.sleep(0.05)
        done = [task for task in (*running, late) if task.done()]
        assert len(done) == 1
        record = await done[0]
        assert bench.recorded([record.key]) == {record.key: record}
        for task in (*running, late):
            task.cancel()
        await asyncio.gather(*running, late, return_exceptions=True)

    with_bench(tmp_path, check, base_url=llm_server.url, max_concurrency=2)


class FullDisk:
    """A call log on a full disk."""

    async def append(self, record: CallRecord) -> None:
        raise StoreError("the disk is full")

    def room(self) -> int:
        return 1_000


def test_an_answer_that_cannot_be_recorded_does_not_count(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        results = await bench.ask_all(["hello", "hello", "you"])
        assert [str(result) for result in results] == ["the disk is full"] * 3

    with_bench(tmp_path, check, log=FullDisk(), base_url=llm_server.url)


class SlowDisk(FullDisk):
    """A call log whose first record takes until `done`."""

    def __init__(self) -> None:
        self.done = asyncio.Event()

    async def append(self, record: CallRecord) -> None:
        if record.request.messages[0].content == "first":
            await self.done.wait()


def test_a_slot_is_free_while_an_answer_becomes_durable(tmp_path: Path, llm_server: LlmServer) -> None:
    log = SlowDisk()

    async def check(bench: Bench) -> None:
        first = asyncio.create_task(bench.ask("first"))
        await asyncio.sleep(0)
        await bench.ask("second")
        assert not first.done()
        log.done.set()
        await first
        assert llm_server.most_in_flight == 1

    with_bench(tmp_path, check, log=log, base_url=llm_server.url, max_concurrency=1)


def test_a_new_model_behind_the_name_is_warned_of_once(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        for number, fingerprint in enumerate(["fp-1", "fp-1", "fp-2", "fp-1", "fp-2"]):
            llm_server.fingerprint = fingerprint
            await bench.ask(f"question {number}")
        assert bench.warnings == ["connection `writer`: replies now come from `m` (fp-2), before from `m` (fp-1)"]
        llm_server.model = "m-2026"
        await bench.ask("one more")
        assert "`m-2026` (fp-2)" in bench.warnings[1]

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_an_unknown_connection_is_named_with_the_nearest(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(ProjectError, match="no LLM connection `writr`") as caught:
            bench.client.key("writr", ChatRequest((Message("user", "x"),)))
        assert caught.value.hint == "did you mean 'writer'?"

    with_bench(tmp_path, check, base_url="http://127.0.0.1:1/v1")


KILLED = """
import sys
from pathlib import Path
from tests.llm.bench import Bench, with_bench

async def check(bench: Bench) -> None:
    await bench.ask_all([f"question {number}" for number in range(400)])

with_bench(Path(sys.argv[1]), check, base_url=sys.argv[2], max_concurrency=8)
"""


def test_answers_survive_kill_9(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.delay = 0.005
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), llm_server.url], cwd=Path(__file__).parents[2]
    )
    while len(llm_server.requests) < 200:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    sent = [body["messages"][0]["content"] for body in llm_server.requests]
    keys = [call_key({"model": "m"}, ChatRequest((Message("user", text),))) for text in sent]

    async def check(bench: Bench) -> None:
        found = bench.recorded(keys)
        # Lost are those in flight and those of the one group that was being written.
        assert len(found) >= len(sent) - 8 - 64
        assert all(record.reply.text for record in found.values())

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_closing_twice_and_closing_unused_are_fine(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.client.close()

    with_bench(tmp_path, check, base_url="http://127.0.0.1:1/v1")
