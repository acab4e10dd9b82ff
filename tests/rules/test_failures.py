"""SPEC §7, Failures: no answer is a missing row, an unusable answer is a result; each rule on its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bqbuild.run.options import RunOptions
from tests.cli.conftest import Bqbuild
from tests.llm_server import Answer, Fault, default_answer
from tests.space import Space, statuses

MODELS = "models/models.yml"
NOTES = "project/sources/notes.jsonl"
ABOVE = ("clean_notes", "questions")


@pytest.fixture
def once(capitals: Space) -> Space:
    """The project `capitals`, where a call that fails is not tried again within a run."""
    capitals.edit("project/profiles.yml", "retries: 6", "retries: 0")
    return capitals


def finished(text: str, reason: str) -> Fault:
    """A reply that ended for a reason of its own."""

    def edit(body: dict[str, Any]) -> dict[str, Any]:
        body["choices"][0] |= {"finish_reason": reason, "message": {"role": "assistant", "content": text}}
        return body

    return Fault(edit=edit)


def unusable_for(place: str, text: str = "no") -> Any:
    def answer(body: dict[str, Any]) -> Answer:
        return text if place in str(body) else default_answer(body)

    return answer


def many(space: Space, rows: int) -> None:
    notes = [{"id": str(n), "topic": f"Place {n:03}", "text": f"Text number {n:03}."} for n in range(rows)]
    space.write(NOTES, "".join(json.dumps(note) + "\n" for note in notes))
    space.edit(MODELS, "[primary, undergraduate]", "[primary]")


@pytest.mark.parametrize(
    "fault",
    [Fault(cut="before"), Fault(cut="middle"), Fault(status=429), Fault(status=500), Fault(status=503)],
    ids=["no connection", "cut off", "429", "500", "503"],
)
def test_no_answer_is_a_missing_row_and_the_next_run_sends_it_and_only_it(once: Space, fault: Fault) -> None:
    once.server.fault = lambda body, number: fault if "Japan" in str(body) else None
    results = once.run(*ABOVE)
    assert results["questions"].status == "partial"
    assert "2 rows have no answer; `bqbuild run` asks again" in results["questions"].reason
    assert results["questions"].counts.rows == 6
    assert once.rows("select distinct answered, response from questions__errors") == [
        {"answered": False, "response": ""}
    ]
    once.server.fault = lambda body, number: None
    assert statuses(once.run(*ABOVE))["questions"] == "success"
    assert once.sent == 2
    assert all("Japan" in str(body) for body in once.server.requests[-2:])
    assert once.rows("select * from questions__errors") == []


def test_a_key_that_is_refused_half_way_leaves_missing_rows(once: Space) -> None:
    once.edit("project/profiles.yml", "max_concurrency: 64", "max_concurrency: 1")
    once.server.fault = lambda body, number: Fault(status=401) if number > 3 else None
    results = once.run(*ABOVE)
    assert results["questions"].status == "partial"
    assert results["questions"].counts.rows == 3
    assert {row["reason"] for row in once.rows("select reason from questions__errors")} == {"auth"}
    assert once.sent == 4, "nothing more is sent with a key that is refused"
    once.server.fault = lambda body, number: None
    once.run(*ABOVE)
    assert once.sent == 5


@pytest.mark.parametrize(
    ("fault", "reason", "sent"),
    [
        (finished("I must not say.", "content_filter"), "refused", 8),
        (finished('{"question": "What', "length"), "truncated", 8),
        (finished("no JSON at all", "stop"), "unparsable", 10),
        (finished("", "stop"), "empty", 8),
    ],
    ids=["refused", "truncated", "unparsable", "empty"],
)
def test_an_unusable_answer_is_a_result(once: Space, fault: Fault, reason: str, sent: int) -> None:
    once.server.fault = lambda body, number: fault if "Brazil" in str(body) else None
    results = once.run(*ABOVE)
    assert results["questions"].status == "success"
    assert results["questions"].counts.rows == 6
    assert once.sent == sent
    errors = once.rows("select reason, answered, response, message from questions__errors")
    assert [(error["reason"], error["answered"]) for error in errors] == [(reason, True)] * 2
    assert all(error["message"] for error in errors)
    if reason != "empty":
        assert all(error["response"] for error in errors)
    once.server.fault = lambda body, number: None
    assert set(statuses(once.run(*ABOVE)).values()) == {"cached"}
    assert once.sent == 0


def test_missing_rows_beside_unusable_ones_are_a_partial_model(once: Space) -> None:
    once.write(NOTES, "".join(once.read(NOTES).splitlines(keepends=True)[:2]))
    once.edit(MODELS, "[primary, undergraduate]", "[primary]")
    once.server.answer = lambda body: "no"
    once.server.fault = lambda body, number: Fault(status=500) if number == 2 else None
    results = once.run(*ABOVE)
    assert results["questions"].status == "partial"
    assert [row["answered"] for row in once.rows("select answered from questions__errors order by 1")] == [False, True]


def test_only_the_missing_row_is_sent_again_where_others_were_unusable(once: Space) -> None:
    once.server.answer = unusable_for("Brazil")
    once.server.fault = lambda body, number: Fault(status=500) if "Japan" in str(body) else None
    assert once.run(*ABOVE)["questions"].status == "partial"
    once.server.fault = lambda body, number: None
    once.server.answer = default_answer
    results = once.run(*ABOVE)
    assert once.sent == 2
    assert results["questions"].status == "success"
    assert results["questions"].counts.rows == 6


@pytest.mark.parametrize(("bad", "status"), [(2, "success"), (3, "error")], ids=["4 %", "6 %"])
def test_the_error_rate_is_tested_from_50_rows_on(once: Space, bad: int, status: str) -> None:
    many(once, 50)
    places = [f"Place {n:03}" for n in range(bad)]
    once.server.answer = lambda body: "no" if any(place in str(body) for place in places) else default_answer(body)
    results = once.run(*ABOVE)
    assert results["questions"].status == status
    if status == "error":
        assert "3 of 50 answers were unusable, above its max_error_rate of 0.05" in results["questions"].reason


def test_the_error_rate_of_fewer_than_50_rows_is_not_tested(once: Space) -> None:
    many(once, 49)
    once.server.answer = lambda body: "no" if "Place 00" in str(body) else default_answer(body)
    results = once.run(*ABOVE)
    assert statuses(results)["questions"] == "success"
    assert results["questions"].counts.rows == 39


def test_an_error_rate_that_was_exceeded_costs_nothing_again(once: Space) -> None:
    many(once, 60)
    once.server.answer = unusable_for("Place 00")
    assert once.run(*ABOVE)["questions"].status == "error"
    paid = once.sent
    once.edit(MODELS, "    kind: synthesize\n", "    kind: synthesize\n    max_error_rate: 0.2\n")
    results = once.run(*ABOVE)
    assert statuses(results)["questions"] == "success"
    assert paid + once.sent == 70, "60 questions, 10 of them asked once more"
    assert results["questions"].counts.rows == 50


def test_a_judge_without_a_usable_verdict_rejects(once: Space) -> None:
    _judged(once)
    once.server.answer = lambda body: "who knows" if _is_verdict(body) and "Brazil" in str(body) else _usual(body)
    results = once.run()
    assert statuses(results)["kept"] == "success"
    assert results["kept"].counts.rows == 6
    assert {row["_bq_reason"] for row in once.rows("select * from kept__rejects")} == {"no usable verdict: unparsable"}
    assert once.rows("select distinct reason, response, answered from kept__errors") == [
        {"reason": "unparsable", "response": "who knows", "answered": True}
    ]
    assert set(statuses(once.run()).values()) == {"cached"}
    assert once.sent == 0


def test_a_judge_that_did_not_answer_leaves_the_row_for_the_next_run(once: Space) -> None:
    _judged(once)
    once.server.answer = _usual
    once.server.fault = lambda body, number: Fault(status=500) if _is_verdict(body) and "Japan" in str(body) else None
    results = once.run()
    assert results["kept"].status == "partial"
    assert once.rows("select * from kept__rejects") == []
    once.server.fault = lambda body, number: None
    results = once.run()
    assert once.sent == 2
    assert results["kept"].counts.rows == 8


def test_annotate_drops_by_default_and_names_the_calls_of_every_ballot(once: Space) -> None:
    once.edit(MODELS, "    kind: annotate\n", "    kind: annotate\n    votes: 3\n    max_error_rate: 1\n")
    once.server.answer = lambda body: "who knows" if "How difficult" in str(body) else default_answer(body)
    results = once.run()
    assert results["labelled"].counts.rows == 0
    errors = once.rows("select _bq_calls from labelled__errors")
    assert [len(error["_bq_calls"]) for error in errors] == [6] * 8, "three ballots, each asked for once more"


def test_printing_null_is_an_error_of_the_row_and_makes_no_call(once: Space) -> None:
    once.write(NOTES, once.read(NOTES) + '{"id": "nn", "topic": null, "text": "Somewhere."}\n')
    results = once.run(*ABOVE)
    assert (results["questions"].status, once.sent) == ("success", 8)
    errors = once.rows("select reason, message, _bq_calls as calls from questions__errors")
    assert [(error["reason"], error["calls"]) for error in errors] == [("render", [])] * 2
    assert "topic" in errors[0]["message"]


def test_a_budget_says_how_to_go_on_and_each_run_buys_as_much_again(once: Space) -> None:
    once.edit(MODELS, "    kind: synthesize\n", "    kind: synthesize\n    budget: {calls: 5}\n")
    results = once.run(*ABOVE)
    assert (results["questions"].status, once.sent) == ("partial", 5)
    reason = results["questions"].reason
    assert reason.startswith("3 rows have no answer: the budget of 5 calls is spent; `bqbuild run` buys as much again")
    assert "`budget.calls`" in reason
    assert once.run(*ABOVE)["questions"].status == "success"
    assert once.sent == 3


def test_a_budget_in_dollars_holds_with_calls_in_flight_and_replies_without_a_limit(once: Space) -> None:
    once.edit(MODELS, "params: {temperature: 0.7, max_tokens: 200}", "budget: {cost: 0.02}")
    once.server.delay = 0.05
    once.server.answer = lambda body: {
        "role": "assistant",
        "content": json.dumps({"question": "a " * 3000, "answer": "b"}),
    }
    results = once.run(*ABOVE)
    assert results["questions"].status == "partial"
    assert 0 < results["questions"].counts.cost <= 0.02
    assert once.sent == 2, "two replies of 4,096 tokens at most fit into 2 cents, three do not"


def test_the_limits_of_a_run_hold_over_all_models_and_calls_in_flight(once: Space) -> None:
    once.server.delay = 0.02
    results = once.run(options=RunOptions(max_calls=11))
    assert once.sent == 11
    assert "--max-calls 11 is reached; `bqbuild run` goes on from here" in str(results)
    results = once.run(options=RunOptions(max_tokens=6000))
    used = sum(result.counts.input_tokens + result.counts.output_tokens for result in results.values())
    assert 0 < used <= 6000
    results = once.run(options=RunOptions(max_cost=0.0))
    assert once.sent == 0
    assert not {result.status for result in results.values()} <= {"success", "cached"}
    assert {result.status for result in once.run().values()} <= {"success", "cached"}


def test_a_limit_of_nothing_sends_nothing_and_is_exit_1(
    capitals: Space, bqbuild: Bqbuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(capitals.root)
    monkeypatch.setenv("LLM_URL", capitals.server.url)
    for limit in ("--max-calls", "--max-cost", "--max-tokens"):
        done = bqbuild("run", limit, "0")
        assert done.code == 1
        assert f"{limit} 0" in done.err
    assert capitals.server.requests == []
    assert bqbuild("run", "--max-calls", "-1").code == 2


def _judged(space: Space) -> None:
    space.write("prompts/verdict.md", "Is this a good question, yes or no?\n{{ topic }}: {{ question }}\n")
    space.edit(
        MODELS,
        '      - {name: long_enough, sql: "length(question) > 3"}\n',
        "      - name: good\n        judge: {prompt: verdict, llm: writer, accept: \"verdict = 'yes'\", "
        "output: {format: choice, columns: {verdict: {values: ['yes', 'no']}}}}\n",
    )


def _is_verdict(body: dict[str, Any]) -> bool:
    return "Is this a good question" in str(body["messages"][0])


def _usual(body: dict[str, Any]) -> Answer:
    return "yes" if _is_verdict(body) else default_answer(body)
