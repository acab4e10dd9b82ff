"""Calls by batch: what is sent together, what is recorded, and what happens when a provider does its worst."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bqbuild.core.errors import ProviderError, StoreError
from bqbuild.core.records import Constraint
from tests.batch_server import BatchServer, RemoteBatch, refusal
from tests.llm.bench import Bench, with_bench

TEXTS = [f"question {number}" for number in range(6)]
QUICK = {"quiet": 0.02, "poll": 0.02}


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer() as running:
        yield running


def _by_batch(server: BatchServer, *, batch: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    return {"base_url": server.url, "mode": "batch", "batch": {**QUICK, **(batch or {})}, **rest}


def _ask(path: Path, texts: list[str] = TEXTS, **connection: Any) -> list[Any]:
    """What came of asking all texts at once, in a client of its own."""

    async def check(bench: Bench) -> list[Any]:
        return await bench.ask_all(texts)

    return with_bench(path, check, **connection)


def _texts_of(server: BatchServer) -> list[str]:
    return sorted(body["messages"][0]["content"] for body in server.answered)


def test_calls_that_come_together_go_as_one_batch(tmp_path: Path, server: BatchServer) -> None:
    records = _ask(tmp_path, **_by_batch(server))
    assert server.sizes() == [6]
    assert server.counts["upload"] == server.counts["create"] == 1
    assert not server.requests
    assert [record.request.messages[0].content for record in records] == TEXTS
    assert len({record.reply.text for record in records}) == 6


def test_answers_are_the_same_as_online_and_under_the_same_keys(tmp_path: Path, server: BatchServer) -> None:
    online = _ask(tmp_path / "online", base_url=server.url, params={"seed": 7})
    batched = _ask(tmp_path / "batched", **_by_batch(server, params={"seed": 7}))
    assert [(r.key, r.reply, r.identity) for r in batched] == [(r.key, r.reply, r.identity) for r in online]


def test_a_batch_costs_half_or_what_its_discount_says(tmp_path: Path, server: BatchServer) -> None:
    price = {"input": 1.0, "output": 2.0}
    (online,) = _ask(tmp_path / "online", ["one"], base_url=server.url, price=price)
    (half,) = _ask(tmp_path / "half", ["one"], **_by_batch(server, price=price))
    (fifth,) = _ask(tmp_path / "fifth", ["one"], **_by_batch(server, price={**price, "batch_discount": 0.2}))
    assert online.cost > 0
    assert half.cost == pytest.approx(online.cost / 2)
    assert fifth.cost == pytest.approx(online.cost * 0.8)


def test_a_full_batch_is_sent_at_once_and_the_rest_goes_into_another(tmp_path: Path, server: BatchServer) -> None:
    _ask(tmp_path, **_by_batch(server, batch={"max_requests": 4}))
    assert server.sizes() == [4, 2]


def test_no_batch_has_more_bytes_than_allowed(tmp_path: Path, server: BatchServer) -> None:
    _ask(tmp_path, **_by_batch(server, batch={"max_bytes": 600}))
    uploads = [content for name, content in server.files.items() if server.names[name].startswith("bqbuild-")]
    assert len(uploads) > 1
    assert all(len(content) <= 600 for content in uploads)
    assert _texts_of(server) == TEXTS


def test_a_request_that_fits_into_no_batch_fails_alone(tmp_path: Path, server: BatchServer) -> None:
    long, short = _ask(tmp_path, ["x" * 1000, "short"], **_by_batch(server, batch={"max_bytes": 600}))
    assert isinstance(long, ProviderError)
    assert "more than a batch may have" in long.message
    assert short.reply.text


def test_no_more_batches_are_under_way_than_allowed(tmp_path: Path, server: BatchServer) -> None:
    most = 0

    def count(step: str) -> bool:
        nonlocal most
        most = max(most, sum(batch.status in ("validating", "in_progress") for batch in server.batches.values()))
        return False

    server.break_off = count
    _ask(tmp_path, **_by_batch(server, batch={"max_requests": 1, "max_batches": 2}))
    assert server.sizes() == [1] * 6
    assert most == 2


def test_a_failed_line_goes_into_a_following_batch(tmp_path: Path, server: BatchServer) -> None:
    server.outcome = lambda body, number: refusal(429) if len(server.batches) == 1 and number in (2, 5) else {}
    records = _ask(tmp_path, **_by_batch(server))
    assert server.sizes() == [6, 2]
    assert all(record.reply.text for record in records)
    assert _texts_of(server) == TEXTS


def test_a_line_that_is_missing_goes_into_a_following_batch(tmp_path: Path, server: BatchServer) -> None:
    server.outcome = lambda body, number: None if len(server.batches) == 1 and number == 3 else {}
    records = _ask(tmp_path, **_by_batch(server))
    assert server.sizes() == [6, 1]
    assert all(record.reply.text for record in records)


def test_a_line_that_keeps_failing_is_given_up_after_as_many_retries_as_online(
    tmp_path: Path, server: BatchServer
) -> None:
    server.outcome = lambda body, number: refusal(500) if body["messages"][0]["content"] == TEXTS[0] else {}
    first, *others = _ask(tmp_path, **_by_batch(server, retries=2))
    assert server.sizes() == [6, 1, 1]
    assert isinstance(first, ProviderError)
    assert (first.kind, "HTTP 500" in first.message) == ("server", True)
    assert all(record.reply.text for record in others)


def test_a_refused_request_is_not_sent_again(tmp_path: Path, server: BatchServer) -> None:
    server.outcome = lambda body, number: refusal(400, "too long") if number == 1 else {}
    first, *others = _ask(tmp_path, **_by_batch(server))
    assert server.sizes() == [6]
    assert isinstance(first, ProviderError)
    assert (first.kind, first.message) == ("request", "the server refused the request (HTTP 400): too long")
    assert len(others) == 5


def test_an_expired_batch_gives_what_it_has_and_the_rest_is_sent_again(tmp_path: Path, server: BatchServer) -> None:
    expired = {"response": None, "error": {"code": "batch_expired", "message": "This request could not be executed"}}
    server.outcome = lambda body, number: expired if len(server.batches) == 1 and number > 2 else {}
    server.ending = lambda batch: "expired" if batch.id == "batch-1" else "completed"
    records = _ask(tmp_path, **_by_batch(server))
    assert server.sizes() == [6, 4]
    assert all(record.reply.text for record in records)
    assert _texts_of(server) == TEXTS


def test_a_batch_that_expired_without_files_is_sent_again(tmp_path: Path, server: BatchServer) -> None:
    server.outcome = lambda body, number: None if len(server.batches) == 1 else {}
    server.ending = lambda batch: "expired" if batch.id == "batch-1" else "completed"
    _ask(tmp_path, **_by_batch(server))
    assert server.sizes() == [6, 6]
    assert len(server.answered) == 6


def test_a_cancelled_batch_gives_what_it_has_and_the_rest_waits_for_the_next_run(
    tmp_path: Path, server: BatchServer
) -> None:
    cancelled = {"response": None, "error": {"code": "batch_cancelled", "message": "Cancelled."}}
    server.outcome = lambda body, number: (cancelled, None)[number % 2] if number > 2 else {}
    server.ending = lambda batch: "cancelled"
    outcomes = _ask(tmp_path, **_by_batch(server))
    assert server.sizes() == [6]
    lost = [outcome for outcome in outcomes if isinstance(outcome, ProviderError)]
    assert {error.message for error in lost} == {"the batch was cancelled at the provider"}
    assert len(lost) == 4
    server.outcome, server.ending = (lambda body, number: {}), (lambda batch: "completed")
    _ask(tmp_path, **_by_batch(server))
    assert server.sizes()[1:] == [4]


def test_a_file_that_is_refused_fails_the_lines_at_fault_and_sends_the_others_again(
    tmp_path: Path, server: BatchServer
) -> None:
    def ending(batch: RemoteBatch) -> str:
        if len(batch.lines) < 6:
            return "completed"
        batch.errors = [{"code": "invalid_request", "message": "no such parameter", "line": 2}]
        return "failed"

    server.ending = ending
    outcomes = _ask(tmp_path, **_by_batch(server))
    assert server.sizes() == [6, 5]
    assert isinstance(outcomes[1], ProviderError)
    assert outcomes[1].message == "the provider refused the request: no such parameter"
    assert all(outcomes[number].reply.text for number in (0, 2, 3, 4, 5))


def test_a_batch_that_is_refused_as_a_whole_fails_all_its_calls_clearly(tmp_path: Path, server: BatchServer) -> None:
    def ending(batch: RemoteBatch) -> str:
        batch.errors = [{"code": "model_not_found", "message": "no model `m` for batches"}]
        return "failed"

    server.ending = ending
    outcomes = _ask(tmp_path, **_by_batch(server))
    assert server.sizes() == [6]
    assert {error.message for error in outcomes} == {"the provider refused the batch: no model `m` for batches"}


def test_a_provider_without_room_gets_the_batch_when_another_one_has_ended(tmp_path: Path, server: BatchServer) -> None:
    def ending(batch: RemoteBatch) -> str:
        if not any(other.status == "in_progress" for other in server.batches.values() if other is not batch):
            return "completed"
        batch.errors = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]
        return "failed"

    server.ending = ending
    records = _ask(tmp_path, **_by_batch(server, batch={"max_requests": 3}))
    assert all(record.reply.text for record in records)
    assert len(server.answered) == 6


def test_a_provider_without_room_at_all_says_what_to_do(tmp_path: Path, server: BatchServer) -> None:
    def ending(batch: RemoteBatch) -> str:
        batch.errors = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]
        return "failed"

    server.ending = ending
    outcomes = _ask(tmp_path, **_by_batch(server))
    assert {(error.kind, error.hint) for error in outcomes} == {
        ("rate_limit", "lower `batch.max_requests` or `batch.max_batches`, then run again")
    }


@pytest.mark.parametrize("step", ["upload", "create", "look", "content"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_connection_repeats_no_step_that_was_done(
    tmp_path: Path, server: BatchServer, step: str, moment: str
) -> None:
    broken: list[str] = []

    def break_once(where: str) -> bool:
        if where != f"{moment} {step}" or broken:
            return False
        broken.append(where)
        return True

    server.break_off = break_once
    records = _ask(tmp_path, **_by_batch(server))
    assert broken
    assert all(record.reply.text for record in records)
    assert server.counts["upload"] == server.counts["create"] == len(server.batches) == 1
    assert len(server.answered) == 6


@pytest.mark.parametrize("step", ["upload", "create", "look", "content"])
def test_a_server_that_fails_for_a_moment_is_asked_again(tmp_path: Path, server: BatchServer, step: str) -> None:
    refusals = iter([500, 429, 503])
    server.status_of = lambda asked: next(refusals, 200) if asked == step else 200
    assert all(record.reply.text for record in _ask(tmp_path, **_by_batch(server)))
    assert len(server.answered) == 6


def test_a_server_without_a_batch_api_is_named_with_what_to_do(tmp_path: Path, server: BatchServer) -> None:
    server.status_of = lambda step: 404
    error = _ask(tmp_path, ["one"], **_by_batch(server))[0]
    assert error.kind == "setup"
    assert error.message == "nothing answers at /v1/files (HTTP 404): upload says 404"
    assert "mode: online" in error.hint


def test_a_refused_key_loses_nothing_and_is_not_written_anywhere(tmp_path: Path, server: BatchServer) -> None:
    key = "sk-very-secret-0123456789"
    server.api_key = "another"
    error = _ask(tmp_path, ["one"], **_by_batch(server, api_key=key))[0]
    assert error.kind == "auth"
    assert key not in str(error)
    server.api_key = key
    (record,) = _ask(tmp_path, ["one"], **_by_batch(server, api_key=key))
    assert record.reply.text
    assert server.sizes() == [1]
    assert all(key.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_schema_that_is_refused_is_left_out_of_the_following_batch(tmp_path: Path, server: BatchServer) -> None:
    server.outcome = lambda body, number: (
        refusal(400, "response_format is not supported") if "response_format" in body else {}
    )

    async def check(bench: Bench) -> list[str]:
        record = await bench.ask("one of: a, b", constraint=Constraint(("a", "b")))
        return [record.reply.text, *bench.warnings]

    text, warning = with_bench(tmp_path, check, **_by_batch(server))
    assert text
    assert "does not take the schema" in warning
    assert server.sizes() == [1, 1]


def test_two_clients_of_one_store_do_not_send_the_same_call_twice(tmp_path: Path, server: BatchServer) -> None:
    async def check(bench: Bench) -> None:
        other = Bench(tmp_path / "store", bench.pace, None, _by_batch(server))
        try:
            both = await asyncio.gather(bench.ask_all(TEXTS[:4]), other.ask_all(TEXTS[2:]))
        finally:
            await other.client.close()
            other.store.close()
        first, second = both
        assert [record.key for record in first[2:]] == [record.key for record in second[:2]]

    with_bench(tmp_path / "store", check, **_by_batch(server))
    assert _texts_of(server) == TEXTS


def test_a_batch_that_another_client_holds_is_waited_for_and_its_answers_are_used(
    tmp_path: Path, server: BatchServer
) -> None:
    async def check(bench: Bench) -> None:
        asking = asyncio.ensure_future(bench.ask_all(TEXTS))
        while not server.batches:
            await asyncio.sleep(0.005)
        other = Bench(tmp_path / "store", bench.pace, None, _by_batch(server))
        try:
            assert await other.ask_all(TEXTS) == await asking
        finally:
            await other.client.close()
            other.store.close()

    server.looks = 20
    with_bench(tmp_path / "store", check, **_by_batch(server))
    assert server.sizes() == [6]


def _leave_behind(path: Path, server: BatchServer, step: str, **connection: Any) -> list[str]:
    """Ask, and close the client at a step, as Ctrl-C does; the warnings that it gave."""

    async def check(bench: Bench) -> list[str]:
        reached = asyncio.Event()
        loop = asyncio.get_running_loop()

        def at(where: str) -> bool:
            if where == step:
                loop.call_soon_threadsafe(reached.set)
            return where == step

        server.break_off = at
        asking = asyncio.ensure_future(bench.ask_all(TEXTS))
        await asyncio.wait_for(reached.wait(), 30)
        await bench.client.close()
        asking.cancel()
        server.break_off = lambda where: False
        return bench.warnings

    return with_bench(path, check, **connection)


def test_a_client_that_is_closed_says_that_its_batch_goes_on(tmp_path: Path, server: BatchServer) -> None:
    server.looks = 3
    warnings = _leave_behind(tmp_path, server, "before look", **_by_batch(server))
    assert warnings == [
        "connection `writer`: a batch of 6 calls goes on at the provider; the next `bqbuild run` collects the answers"
    ]
    assert all(record.reply.text for record in _ask(tmp_path, **_by_batch(server)))
    assert server.sizes() == [6]


def test_an_adopted_batch_is_recorded_whole_whoever_asks_for_how_much_of_it(
    tmp_path: Path, server: BatchServer
) -> None:
    _leave_behind(tmp_path, server, "before look", **_by_batch(server))
    _ask(tmp_path, TEXTS[:1], **_by_batch(server))
    assert not list(tmp_path.rglob("batches/*"))
    server.break_off = lambda where: True  # all of it is in the log by now
    records = _ask(tmp_path, [], **_by_batch(server))
    assert records == []

    async def check(bench: Bench) -> int:
        from bqbuild.core.records import ChatRequest, Message

        keys = [bench.client.key("writer", ChatRequest((Message("user", text),))) for text in TEXTS]
        return len(bench.recorded(keys))

    assert with_bench(tmp_path, check, **_by_batch(server)) == 6


def test_a_batch_that_was_only_planned_is_not_sent_for_calls_that_nobody_wants(
    tmp_path: Path, server: BatchServer
) -> None:
    _leave_behind(tmp_path, server, "before upload", **_by_batch(server))
    records = _ask(tmp_path, [*TEXTS[:2], "another"], **_by_batch(server))
    assert all(record.reply.text for record in records)
    assert _texts_of(server) == sorted(["another", *TEXTS[:2]])
    assert not list(tmp_path.rglob("batches/*"))


def test_an_uploaded_file_is_used_by_the_next_run(tmp_path: Path, server: BatchServer) -> None:
    _leave_behind(tmp_path, server, "after upload", **_by_batch(server))
    assert all(record.reply.text for record in _ask(tmp_path, **_by_batch(server)))
    assert server.counts["upload"] == 1
    assert server.sizes() == [6]


def test_a_batch_is_found_on_any_page_of_the_provider_s_list(tmp_path: Path, server: BatchServer) -> None:
    _leave_behind(tmp_path, server, "after create", **_by_batch(server))
    server.page = 1
    for number in range(5):
        server.batches[f"other-{number}"] = RemoteBatch(f"other-{number}", "file-0", {}, [], 1)
    assert all(record.reply.text for record in _ask(tmp_path, **_by_batch(server)))
    assert server.counts["create"] == 1


def test_a_batch_that_the_provider_forgot_is_asked_for_anew_with_a_warning(tmp_path: Path, server: BatchServer) -> None:
    _leave_behind(tmp_path, server, "before look", **_by_batch(server))
    server.batches.clear()

    async def check(bench: Bench) -> list[str]:
        assert all(record.reply.text for record in await bench.ask_all(TEXTS))
        return bench.warnings

    warnings = with_bench(tmp_path, check, **_by_batch(server))
    assert warnings == ["connection `writer`: the provider no longer has batch batch-1; its calls are new again"]


def test_a_batch_at_an_address_that_is_no_longer_reached_is_not_paid_for_again(
    tmp_path: Path, server: BatchServer
) -> None:
    _leave_behind(tmp_path, server, "before look", **_by_batch(server))
    with BatchServer() as another:
        outcomes = _ask(tmp_path, **_by_batch(another))
        assert not another.batches
    assert {error.kind for error in outcomes} == {"setup"}
    assert f"was sent to {server.url} in batch batch-1" in outcomes[0].message
    assert "set `base_url` back" in outcomes[0].hint
    assert all(record.reply.text for record in _ask(tmp_path, **_by_batch(server)))
    assert server.sizes() == [6]


def test_the_same_provider_at_another_address_goes_on(tmp_path: Path, server: BatchServer) -> None:
    _leave_behind(tmp_path, server, "before look", **_by_batch(server))
    address = server.url.replace("127.0.0.1", "localhost")
    assert all(record.reply.text for record in _ask(tmp_path, **_by_batch(server) | {"base_url": address}))
    assert server.sizes() == [6]


def test_a_damaged_record_of_a_batch_is_named_and_nothing_is_paid_again(tmp_path: Path, server: BatchServer) -> None:
    _leave_behind(tmp_path, server, "before look", **_by_batch(server))
    (calls,) = tmp_path.rglob("batches/*.calls")
    calls.write_bytes(calls.read_bytes().replace(b"question 3", b"question 9"))
    outcomes = _ask(tmp_path, **_by_batch(server))
    assert all(isinstance(outcome, StoreError) for outcome in outcomes)
    assert outcomes[0].message == f"line 4 of {calls} is damaged"
    assert server.sizes() == [6]


def test_a_look_that_fails_leaves_the_batch_for_the_next_run(tmp_path: Path, server: BatchServer) -> None:
    server.status_of = lambda step: 500 if step == "look" else 200
    outcomes = _ask(tmp_path, **_by_batch(server, retries=1))
    assert {error.hint for error in outcomes} == {
        "the batch goes on at the provider, and the next `bqbuild run` collects it"
    }
    server.status_of = lambda step: 200
    assert all(record.reply.text for record in _ask(tmp_path, **_by_batch(server)))
    assert server.sizes() == [6]
