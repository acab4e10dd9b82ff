"""The provider `openai` over real HTTP: endpoints, schemas, headers, sizes."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections import Counter
from pathlib import Path

import pytest

from bqbuild.core.errors import ProjectError, ProviderError
from bqbuild.core.records import CallRecord, Constraint
from bqbuild.llm.client import ConnectionDown
from tests.llm.bench import Bench, with_bench
from tests.llm_server import Fault, LlmServer

SCHEMA = Constraint(json_schema={"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]})
OTHER = Constraint(choices=("a", "b"))
NO_SCHEMAS = Fault(status=400, body=b'{"error": {"message": "response_format json_schema is not supported"}}')


def test_headers_and_the_key_are_sent_and_a_slash_too_many_is_forgiven(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        await bench.ask("hello")
        sent = llm_server.headers[0]
        assert sent["Authorization"] == "Bearer abc"
        assert sent["X-Team"] == "red"
        assert sent["Content-Type"] == "application/json"

    with_bench(tmp_path, check, base_url=llm_server.url + "/", api_key="abc", headers={"X-Team": "red"})


def test_without_a_key_no_authorization_is_sent(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        await bench.ask("hello")
        assert "Authorization" not in llm_server.headers[0]

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_a_schema_is_sent_where_it_is_declared_and_its_reply_is_read(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        record = await bench.ask("hello", constraint=SCHEMA)
        assert llm_server.requests[0]["response_format"]["json_schema"]["schema"] == SCHEMA.json_schema
        assert record.reply.text.startswith('{"q":')
        assert bench.recorded([record.key])[record.key].request.constraint == SCHEMA

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_a_server_without_schemas_is_asked_once_and_then_without_them(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.fault = lambda body, number: NO_SCHEMAS if "response_format" in body else None

    async def check(bench: Bench) -> None:
        for number in range(5):
            assert (await bench.ask(f"question {number}", constraint=SCHEMA)).reply.text
        assert ["response_format" in body for body in llm_server.requests] == [True] + [False] * 5
        assert len(bench.warnings) == 1
        assert "does not take the schema" in bench.warnings[0]
        assert bench.client.usage("writer").retries == 0

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_a_refused_schema_says_nothing_about_another_one(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.faults.append(NO_SCHEMAS)

    async def check(bench: Bench) -> None:
        await bench.ask("hello", constraint=SCHEMA)
        await bench.ask("hello", constraint=OTHER)
        assert ["response_format" in body for body in llm_server.requests] == [True, False, True]

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_a_refusal_for_another_reason_is_not_taken_for_one_of_the_schema(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.faults.append(Fault(status=400, body=b'{"error": {"message": "prompt too long"}}'))

    async def check(bench: Bench) -> None:
        with pytest.raises(ProviderError, match="prompt too long"):
            await bench.ask("hello", constraint=SCHEMA)
        assert len(llm_server.requests) == 1

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_endpoints_share_the_work(tmp_path: Path, llm_server: LlmServer) -> None:
    with LlmServer() as second, LlmServer() as third:
        servers = [llm_server, second, third]

        async def check(bench: Bench) -> None:
            await bench.ask_all([f"question {number}" for number in range(90)])
            assert sum(len(server.requests) for server in servers) == 90
            assert min(len(server.requests) for server in servers) >= 20

        with_bench(tmp_path, check, base_url=llm_server.url, endpoints=[second.url, third.url], max_concurrency=9)


def test_a_dead_endpoint_is_passed_over(tmp_path: Path, llm_server: LlmServer) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"

    async def check(bench: Bench) -> None:
        results = await bench.ask_all([f"question {number}" for number in range(100)])
        assert all(isinstance(result, CallRecord) for result in results)
        assert bench.client.usage("writer").retries == 0  # another endpoint took over at once

    with_bench(tmp_path, check, base_url=dead, endpoints=[llm_server.url], max_concurrency=4)


def test_calls_in_flight_at_an_endpoint_that_dies_move_to_another(tmp_path: Path, llm_server: LlmServer) -> None:
    with LlmServer() as dying:
        dying.delay = 30

        async def check(bench: Bench) -> None:
            running = asyncio.create_task(bench.ask_all([f"question {number}" for number in range(40)]))
            while len(dying.requests) < 4:
                await asyncio.sleep(0.005)
            await asyncio.to_thread(dying.stop)
            assert all(isinstance(result, CallRecord) for result in await running)
            assert len(llm_server.requests) == 40
            assert bench.client.usage("writer").retries == 0

        with_bench(tmp_path, check, base_url=dying.url, endpoints=[llm_server.url], max_concurrency=8)


def test_an_endpoint_that_is_back_is_used_again(
    tmp_path: Path, llm_server: LlmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bqbuild.llm.endpoints.REST_SECONDS", (0.05, 0.1))
    with LlmServer() as restarting:
        llm_server.delay = restarting.delay = 0.01

        async def check(bench: Bench) -> None:
            await bench.ask_all([f"first {number}" for number in range(20)])
            assert restarting.requests
            await asyncio.to_thread(restarting.stop)
            await bench.ask_all([f"second {number}" for number in range(20)])
            await asyncio.to_thread(restarting.start)
            await asyncio.sleep(0.15)
            restarting.clear()
            results = await bench.ask_all([f"third {number}" for number in range(100)])
            assert all(isinstance(result, CallRecord) for result in results)
            assert len(restarting.requests) >= 10

        with_bench(tmp_path, check, base_url=restarting.url, endpoints=[llm_server.url], max_concurrency=8)


def test_an_endpoint_that_takes_few_gets_few(tmp_path: Path, llm_server: LlmServer) -> None:
    with LlmServer() as small:
        small.capacity, small.retry_after = 2, ""
        llm_server.delay = small.delay = 0.02

        async def check(bench: Bench) -> None:
            results = await bench.ask_all([f"question {number}" for number in range(400)])
            assert all(isinstance(result, CallRecord) for result in results)
            answered = small.statuses.count(200)
            assert answered >= 10
            assert small.statuses.count(429) < 60
            assert len(llm_server.requests) == 400 - answered

        with_bench(tmp_path, check, base_url=small.url, endpoints=[llm_server.url], max_concurrency=32)


def test_a_refused_key_is_not_tried_at_every_endpoint(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.api_key = "another"

    async def check(bench: Bench) -> None:
        with pytest.raises(ConnectionDown, match="refused the key"):
            await bench.ask("hello")
        assert len(llm_server.requests) == 1

    with_bench(tmp_path, check, base_url=llm_server.url, endpoints=[llm_server.url + "/"], api_key="abc")


def test_an_endpoint_that_wants_a_rest_gets_it_while_another_works(tmp_path: Path, llm_server: LlmServer) -> None:
    with LlmServer() as tired:
        tired.fault = lambda body, number: Fault(status=500)

        async def check(bench: Bench) -> None:
            results = await bench.ask_all([f"question {number}" for number in range(60)])
            assert Counter(type(result) for result in results) == {CallRecord: 60}
            assert len(tired.requests) <= 10

        with_bench(tmp_path, check, base_url=tired.url, endpoints=[llm_server.url], max_concurrency=4)


def test_a_redirect_is_not_followed_because_the_key_would_travel_with_it(tmp_path: Path, llm_server: LlmServer) -> None:
    with LlmServer() as elsewhere:
        llm_server.fault = lambda body, number: Fault(status=307, headers={"Location": elsewhere.url})

        async def check(bench: Bench) -> None:
            with pytest.raises(ConnectionDown, match="HTTP 307"):
                await bench.ask("hello")
            assert elsewhere.requests == []

        with_bench(tmp_path, check, base_url=llm_server.url, api_key="abc", retries=0)


def test_a_body_without_end_is_cut_and_not_asked_for_again(
    tmp_path: Path, llm_server: LlmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bqbuild.llm.openai_http.MAX_BODY", 1 << 20)
    llm_server.answer = lambda body: "x" * (2 << 20)

    async def check(bench: Bench) -> None:
        for number, wanted in enumerate((False, True)):
            with pytest.raises(ProviderError, match="longer than 1 MB") as caught:
                await bench.ask(f"hello {number}", params={"max_tokens": 5000 if wanted else 5})
            assert caught.value.kind == "reply"
        assert len(llm_server.requests) == 2

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_a_bomb_of_gzip_is_no_reply(tmp_path: Path, llm_server: LlmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bqbuild.llm.openai_http.MAX_BODY", 8 << 20)
    bomb = gzip.compress(bytes(64 << 20))
    assert len(bomb) < 100_000
    llm_server.faults.append(Fault(body=bomb, headers={"Content-Encoding": "gzip"}))

    async def check(bench: Bench) -> None:
        with pytest.raises(ProviderError, match=r"longer than 8 MB|no connection"):
            await bench.ask("hello")

    with_bench(tmp_path, check, base_url=llm_server.url, retries=0)


def test_gzip_is_unpacked_and_broken_gzip_is_a_fault_of_transport(tmp_path: Path, llm_server: LlmServer) -> None:
    packed = gzip.compress(b'{"choices": [{"message": {"content": "packed"}}]}')

    async def check(bench: Bench) -> None:
        llm_server.faults.append(Fault(body=packed, headers={"Content-Encoding": "gzip"}))
        assert (await bench.ask("hello")).reply.text == "packed"
        llm_server.faults.append(Fault(body=b"no gzip", headers={"Content-Encoding": "gzip"}))
        assert (await bench.ask("you")).reply.text.startswith("Answer")
        assert bench.client.usage("writer").retries == 1

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_a_huge_reply_is_a_reply(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.answer = lambda body: "wörd " * (4 << 20)

    async def check(bench: Bench) -> None:
        record = await bench.ask("hello")
        assert len(record.reply.text) == 5 * (4 << 20)
        assert bench.recorded([record.key])[record.key].reply.text == record.reply.text

    with_bench(tmp_path, check, base_url=llm_server.url)


def test_what_a_content_filter_stops_is_an_answer_and_not_asked_again(tmp_path: Path, llm_server: LlmServer) -> None:
    said = b'{"error": {"code": "content_filter", "message": "The prompt was filtered", "innererror": {}}}'
    llm_server.faults.append(Fault(status=400, body=said))

    async def check(bench: Bench) -> None:
        record = await bench.ask("hello")
        assert (record.reply.finish_reason, record.reply.text) == ("content_filter", "The prompt was filtered")
        assert record.cost == 0
        assert bench.recorded([record.key])

    with_bench(tmp_path, check, base_url=llm_server.url, price={"input": 1.0, "output": 1.0})


def test_a_429_without_retry_after_is_waited_for_as_its_quota_says(tmp_path: Path, llm_server: LlmServer) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "200ms"}
    llm_server.faults.append(Fault(status=429, headers=headers))

    async def check(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert (await bench.ask("hello")).reply.text
        assert loop.time() - began >= 0.2

    with_bench(tmp_path, check, base_url=llm_server.url)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://host:99999/v1", "http://no such host/v1", "host/v1"])
def test_an_address_that_is_none_is_an_error_and_not_a_crash(url: str, tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(ProjectError, match="no http:// or https:// address"):
            await bench.ask("hello")

    with_bench(tmp_path, check, base_url=url)


def test_a_host_that_is_not_there_is_a_fault_of_transport(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(ProviderError, match=r"no connection with http://nowhere\.invalid/v1") as caught:
            await bench.ask("hello")
        assert caught.value.kind == "transport"

    with_bench(tmp_path, check, base_url="http://nowhere.invalid/v1", retries=0)


def test_a_server_that_cannot_be_trusted_ends_the_run_at_once(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(ConnectionDown, match="no trusted connection") as caught:
            await bench.ask("hello")
        assert caught.value.kind == "setup"

    with_bench(tmp_path, check, base_url=llm_server.url.replace("http:", "https:"))


def test_a_newline_behind_the_key_is_forgiven(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.api_key = "abc"

    async def check(bench: Bench) -> None:
        assert (await bench.ask("hello")).reply.text

    with_bench(tmp_path, check, base_url=llm_server.url, api_key="abc\n")


def test_a_query_in_the_address_goes_behind_the_path(tmp_path: Path, llm_server: LlmServer) -> None:
    async def check(bench: Bench) -> None:
        await bench.ask("hello")
        assert llm_server.paths == ["/v1/chat/completions?api-version=2026-01"]

    with_bench(tmp_path, check, base_url=llm_server.url + "?api-version=2026-01")


def test_a_proxy_of_the_environment_is_used_except_for_this_machine(
    tmp_path: Path, llm_server: LlmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test's server stands in for the proxy: a proxy for http gets an ordinary request with a whole address."""
    monkeypatch.setenv("http_proxy", llm_server.url.replace("127.0.0.1", "me:pw@127.0.0.1").removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "")

    async def through(bench: Bench) -> None:
        await bench.ask("hello")
        assert llm_server.headers[0]["Host"] == "far.invalid"
        assert llm_server.headers[0]["Proxy-Authorization"].startswith("Basic ")

    async def past(bench: Bench) -> None:
        await bench.ask("hello you")
        assert "Proxy-Authorization" not in llm_server.headers[1]

    with_bench(tmp_path / "1", through, base_url="http://far.invalid/v1", retries=0)
    with_bench(tmp_path / "2", past, base_url=llm_server.url)


def test_hanging_servers_time_out_and_do_not_block_others(tmp_path: Path, llm_server: LlmServer) -> None:
    llm_server.fault = lambda body, number: Fault(delay=30) if "hang" in body["messages"][0]["content"] else None

    async def check(bench: Bench) -> None:
        results = await bench.ask_all([f"{'hang' if number % 10 == 0 else 'go'} {number}" for number in range(40)])
        kinds = Counter(result.kind if isinstance(result, ProviderError) else "answered" for result in results)
        assert kinds == {"answered": 36, "timeout": 4}
        assert asyncio.get_running_loop().is_running()

    with_bench(tmp_path, check, base_url=llm_server.url, timeout=0.3, retries=0, max_concurrency=8)
