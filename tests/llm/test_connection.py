"""Faults: what is tried again, how often, and when a connection is given up. Every fault is a real server's."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from bqbuild.config.specs import ConnectionSpec
from bqbuild.core.errors import ProviderError
from bqbuild.core.records import CallRecord, ChatReply, ChatRequest, Message
from bqbuild.llm.client import ConnectionDown, Pace
from bqbuild.llm.connection import Connection
from tests.llm.bench import QUICK, Bench, with_bench
from tests.llm_server import Fault, LlmServer

PASSING = {
    "500": (Fault(status=500), "server"),
    "503 with a wait": (Fault(status=503, headers={"Retry-After": "0.01"}), "server"),
    "429": (Fault(status=429), "rate_limit"),
    "429 with a wait": (Fault(status=429, headers={"Retry-After": "0.01"}), "rate_limit"),
    "429 with nonsense": (Fault(status=429, headers={"Retry-After": "soon"}), "rate_limit"),
    "cut before the answer": (Fault(cut="before"), "transport"),
    "cut in the middle": (Fault(cut="middle"), "transport"),
    "hanging": (Fault(delay=30), "timeout"),
    "garbage": (Fault(body=b"\x00\xff garbage"), "reply"),
    "truncated JSON": (Fault(body=b'{"choices": [{"message": {"content": "a'), "reply"),
    "HTML": (Fault(body=b"<html>please log in</html>", content_type="text/html"), "reply"),
    "empty": (Fault(body=b""), "reply"),
    "no choices": (Fault(edit=lambda body: {**body, "choices": []}), "reply"),
    "no message": (Fault(edit=lambda body: {**body, "choices": [{}]}), "reply"),
    "an error with status 200": (Fault(edit=lambda body: {"error": {"message": "overloaded"}}), "reply"),
    "a list": (Fault(edit=lambda body: [body]), "reply"),
}


@pytest.mark.parametrize(("fault", "kind"), PASSING.values(), ids=PASSING.keys())
def test_a_fault_that_passes_costs_one_more_request(
    fault: Fault, kind: str, tmp_path: Path, llm_server: LlmServer
) -> None:
    llm_server.faults.append(fault)

    async def check(bench: Bench) -> None:
        assert (await bench.ask("hello")).reply.text.startswith("Answer ")
        assert len(llm_server.requests) == 2
        usage = bench.client.usage("writer")
        assert (usage.requests, usage.retries, usage.answered, usage.failed) == (2, 1, 1, 0)

    with_bench(tmp_path, check, base_url=llm_server.url, timeout=0.5)


@pytest.mark.parametrize(("fault", "kind"), PASSING.values(), ids=PASSING.keys())
def test_a_fault_that_stays_ends_the_call_after_the_retries(
    fault: Fault, kind: str, tmp_path: Path, llm_server: LlmServer
) -> None:
    llm_server.fault = lambda body, number: fault

    async def check(bench: Bench) -> None:
        with pytest.raises(ProviderError) as caught:
            await bench.ask("hello")
        assert caught.value.kind == kind
        assert not isinstance(caught.value, ConnectionDown)
        waits = 6 if fault.headers.get("Retry-After") == "0.01" and fault.status == 429 else 0
        assert len(llm_server.requests) == 1 + 2 + waits
        assert bench.client.usage("writer").failed == 1

    with_bench(tmp_path, check, base_url=llm_server.url, timeout=0.2, retries=2)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_not_repeated(status: int, tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.faults.append(Fault(status=status, body=b'{"error": {"message": "prompt too long"}}'))

    async def check(bench: Bench) -> None:
        with pytest.raises(ProviderError, match=rf"HTTP {status}\): prompt too long") as caught:
            await bench.ask("hello")
        assert caught.value.kind == "request"
        assert len(llm_server.requests) == 1
        assert (await bench.ask("hello")).reply.text

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_five_percent_of_hopeless_rows_cost_the_others_nothing(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.fault = lambda body, number: Fault(status=500) if "0 " in body["messages"][0]["content"] else None

    async def check(bench: Bench) -> None:
        results = await bench.ask_all([f"question {number} please" for number in range(100)])
        failed = [result for result in results if isinstance(result, BaseException)]
        assert len(failed) == 10
        assert all(isinstance(error, ProviderError) and error.kind == "server" for error in failed)
        assert len(llm_server.requests) == 90 + 10 * 3

    with_bench(tmp_path, check, base_url=llm_server.url, retries=2, max_concurrency=8)


def test_a_storm_of_429_is_weathered_without_losing_a_row(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.capacity = 4
    llm_server.delay = 0.002

    async def check(bench: Bench) -> None:
        results = await bench.ask_all([f"question {number}" for number in range(300)])
        assert all(isinstance(result, CallRecord) for result in results)
        # Without the shrinking limit, 64 at a time would be refused again and again.
        assert llm_server.statuses.count(429) < 300

    with_bench(tmp_path, check, base_url=llm_server.url, max_concurrency=64)


def test_a_server_that_restarts_loses_nothing(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        running = asyncio.create_task(bench.ask_all([f"question {number}" for number in range(200)]))
        while len(llm_server.requests) < 50:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(llm_server.stop)
        await asyncio.sleep(0.05)
        await asyncio.to_thread(llm_server.start)
        results = await running
        assert all(isinstance(result, CallRecord) for result in results)

    llm_server.delay = 0.005
    pace = Pace(first_wait=0.1, longest_wait=0.3)
    with_bench(tmp_path, check, pace=pace, base_url=llm_server.url, max_concurrency=8, retries=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_dead_server_ends_the_run_clearly(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        results = await bench.ask_all([f"question {number}" for number in range(200)])
        assert all(isinstance(result, ConnectionDown) for result in results)
        message = str(results[-1])
        assert "connection `writer` is given up: " in message
        assert "failures in a row and no success for 0 s; the last one: no connection with http://127.0.0.1:" in message
        assert "hint: run again when the server is back" in message
        assert bench.client.usage("writer").requests < 60

    pace = Pace(first_wait=0.001, longest_wait=0.01, failures=20, silence=0.0)
    url = f"http://127.0.0.1:{free_port()}/v1"
    with_bench(tmp_path, check, pace=pace, base_url=url, max_concurrency=4)


def test_failures_are_not_a_dead_server_before_the_time_is_up(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.fault = lambda body, number: Fault(status=500) if number <= 60 else None

    async def check(bench: Bench) -> None:
        results = await bench.ask_all([f"question {number}" for number in range(20)])
        assert all(isinstance(result, CallRecord) for result in results)

    with_bench(tmp_path, check, base_url=llm_server.url, retries=60)


def test_calls_that_wait_are_told_at_once_when_the_connection_is_given_up(
    tmp_path: Path, llm_server: LlmServer
) -> None:
    """One call sleeps for an hour before its next attempt and others wait for a slot, when the key is refused."""
    llm_server.faults.append(Fault(status=503, headers={"Retry-After": "3600"}))

    async def check(bench: Bench) -> None:
        sleeping = asyncio.create_task(bench.ask("sleeps"))
        while bench.client.usage("writer").retries == 0:
            await asyncio.sleep(0.005)
        llm_server.api_key = "another"
        results = await bench.ask_all([f"question {number}" for number in range(10)])
        assert all(isinstance(result, ConnectionDown) for result in results)
        with pytest.raises(ConnectionDown):
            await sleeping
        assert len(llm_server.requests) <= 1 + 2

    with_bench(
        tmp_path,
        check,
        pace=Pace(longest_pause=3600),
        base_url=llm_server.url,
        max_concurrency=1,
        total_timeout=7200,
    )


@pytest.mark.parametrize("path", ["/v2", "/v1/typo"])
def test_a_wrong_address_ends_the_run_at_once(path: str, tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(ConnectionDown, match="HTTP 404") as caught:
            await bench.ask("hello")
        assert "base_url" in str(caught.value.hint)

    with_bench(tmp_path, check, base_url=llm_server.url.removesuffix("/v1") + path)


def test_a_404_from_a_server_that_answered_before_is_only_a_fault(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        await bench.ask("hello")
        llm_server.faults.append(Fault(status=404))
        assert (await bench.ask("you")).reply.text

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_a_call_is_not_repeated_when_its_time_is_up(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.fault = lambda body, number: Fault(status=503, headers={"Retry-After": "20"})

    async def check(bench: Bench) -> None:
        with pytest.raises(ProviderError, match="no answer within 10 s in all; the last failure: the server failed"):
            await bench.ask("hello")
        assert len(llm_server.requests) == 1

    with_bench(tmp_path, check, base_url=llm_server.url, total_timeout=10)


def test_a_server_that_takes_few_at_a_time_is_kept_full_and_refuses_little(
    tmp_path: Path, llm_server: LlmServer
) -> None:
    llm_server.capacity = 4
    llm_server.delay = 0.001
    llm_server.retry_after = ""

    async def check(bench: Bench) -> None:
        results = await bench.ask_all([f"question {number}" for number in range(1000)])
        assert all(isinstance(result, CallRecord) for result in results)
        after_the_storm = llm_server.statuses[300:]
        assert after_the_storm.count(429) < len(after_the_storm) / 10

    with_bench(tmp_path, check, base_url=llm_server.url, max_concurrency=64, retries=30)


def test_requests_a_minute_are_kept_in_the_first_minute_too(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await bench.ask_all([f"question {number}" for number in range(30)])
        assert loop.time() - began >= 20 / 10  # ten at once are a second's worth; the others come one by one

    with_bench(tmp_path, check, base_url=llm_server.url, requests_per_minute=600, max_concurrency=30)


class Odd:
    """A provider from outside that breaks its promise to raise ProviderError only."""

    def __init__(self) -> None:
        self.calls = 0

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.calls += 1
        if self.calls == 1:
            raise KeyError("sk-secret-123456")
        return ChatReply("fine")

    async def close(self) -> None:
        pass


def test_a_provider_that_raises_anything_ends_one_call_and_not_the_run() -> None:
    async def check() -> None:
        spec = ConnectionSpec(provider="odd", model="m", api_key="sk-secret-123456")
        connection = Connection("writer", spec, Odd(), print, QUICK)
        with pytest.raises(ProviderError, match=r"the provider `odd` failed: KeyError: '\*\*\*'"):
            await connection.ask(ChatRequest((Message("user", "x"),)))
        reply, _ = await connection.ask(ChatRequest((Message("user", "x"),)))
        assert reply.text == "fine"

    asyncio.run(check())
