"""Chains of row kinds: rows stream, failures stay with their rows, limits hold."""

from __future__ import annotations

import json
from typing import Any

from tests.llm_server import Fault, default_answer
from tests.space import Space, statuses

MODELS = "models/models.yml"


def test_a_row_enters_the_next_node_before_the_slowest_row_has_left_this_one(capitals: Space) -> None:
    capitals.server.fault = lambda body, number: Fault(delay=1.5) if "France" in str(body) else None
    capitals.run()
    kinds = ["ask" if "Write one question" in str(body) else "improve" for body in capitals.server.requests]
    finished_asking = len(kinds) - kinds[::-1].index("ask")
    assert "improve" in kinds
    assert finished_asking <= 8, "all questions are asked at once"
    slow = [body for body in capitals.server.requests if "France" in str(body)]
    assert len(slow) == 2
    # the answers of the six quick rows were asked for while the slow ones were still being written
    assert kinds.index("improve") < len(kinds) - 2


def test_rows_nearer_the_end_go_first_where_a_server_takes_one_request_at_a_time(capitals: Space) -> None:
    capitals.edit("project/profiles.yml", "max_concurrency: 64", "max_concurrency: 1")
    capitals.server.delay = 0.05
    assert set(statuses(capitals.run()).values()) == {"success"}
    said = [str(body["messages"][-1]["content"]) for body in capitals.server.requests]
    first_label = next(number for number, text in enumerate(said) if "How difficult" in text)
    asked_before = sum("Write one question" in text for text in said[:first_label])
    assert asked_before < 8, "a record is finished before every question is asked"


def test_a_failing_row_never_stops_its_siblings(capitals: Space) -> None:
    capitals.server.fault = lambda body, number: Fault(status=500) if "Japan" in str(body) else None
    results = capitals.run()
    assert statuses(results) == {
        "clean_notes": "success",
        "questions": "partial",
        "answers": "success",
        "labelled": "success",
        "kept": "success",
    }
    assert results["kept"].counts.rows == 6


def test_an_unusable_answer_is_a_result_and_is_not_asked_for_again(capitals: Space) -> None:
    def answer(body: dict[str, Any]) -> str:
        return "I would rather not." if "Brazil" in str(body) else default_answer(body)

    capitals.server.answer = answer
    results = capitals.run("clean_notes", "questions")
    assert results["questions"].status == "success"
    assert results["questions"].counts.rows == 6
    assert capitals.sent == 10  # 8 questions, and 2 were asked once more
    errors = capitals.rows("select reason, response, answered from questions__errors")
    assert errors == [{"reason": "unparsable", "response": "I would rather not.", "answered": True}] * 2
    capitals.run("clean_notes", "questions")
    assert capitals.sent == 0


def test_on_error_null_keeps_the_row_with_nulls(capitals: Space) -> None:
    capitals.edit(MODELS, "    kind: synthesize\n", "    kind: synthesize\n    on_error: 'null'\n")
    capitals.server.answer = lambda body: "no" if "Brazil" in str(body) else default_answer(body)
    results = capitals.run("clean_notes", "questions")
    assert results["questions"].counts.rows == 8
    assert capitals.rows("select count(*) as n from questions where question is null") == [{"n": 2}]


def test_on_error_fail_fails_the_node_and_skips_what_is_below(capitals: Space) -> None:
    capitals.edit(MODELS, "    kind: synthesize\n", "    kind: synthesize\n    on_error: fail\n")
    capitals.server.answer = lambda body: "no" if "Brazil" in str(body) else default_answer(body)
    results = capitals.run()
    assert statuses(results)["questions"] == "error"
    assert "on_error: fail" in results["questions"].reason
    assert statuses(results)["answers"] == "skipped"
    assert "questions" not in capitals.digests()


def test_refine_keeps_the_old_value_where_the_answer_is_unusable(capitals: Space) -> None:
    capitals.server.answer = lambda body: "" if "Improve" in str(body) else default_answer(body)
    results = capitals.run("clean_notes", "questions", "answers")
    assert results["answers"].counts.rows == 8
    assert capitals.rows("select count(*) as n from answers where answer = answer_before") == [{"n": 8}]


def test_refine_keeps_the_old_value_where_accept_says_no(capitals: Space) -> None:
    capitals.edit(MODELS, "    kind: refine\n", '    kind: refine\n    accept: "length(answer) > 1000"\n')
    capitals.run("clean_notes", "questions", "answers")
    assert capitals.rows("select count(*) as n from answers where answer = answer_before") == [{"n": 8}]


def test_too_many_unusable_answers_fail_the_node(capitals: Space) -> None:
    rows = [{"id": str(n), "topic": f"Place {n}", "text": f"Text number {n}."} for n in range(60)]
    capitals.write("project/sources/notes.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    capitals.server.answer = lambda body: "no" if "Place 1" in str(body) else default_answer(body)
    results = capitals.run("clean_notes", "questions")
    assert results["questions"].status == "error"
    assert "max_error_rate" in results["questions"].reason
    capitals.edit(MODELS, "    kind: synthesize\n", "    kind: synthesize\n    max_error_rate: 0.5\n")
    assert capitals.run("clean_notes", "questions")["questions"].status == "success"


def test_a_budget_of_calls_is_never_crossed_and_what_was_paid_is_kept(capitals: Space) -> None:
    capitals.edit(MODELS, "    kind: synthesize\n", "    kind: synthesize\n    budget: {calls: 5}\n")
    results = capitals.run("clean_notes", "questions")
    assert capitals.sent == 5
    assert results["questions"].status == "partial"
    assert results["questions"].counts.rows == 5
    capitals.edit(MODELS, "budget: {calls: 5}", "budget: {calls: 50}")
    assert capitals.run("clean_notes", "questions")["questions"].status == "success"
    assert capitals.sent == 3


def test_a_budget_of_dollars_is_never_crossed(capitals: Space) -> None:
    capitals.edit(MODELS, "    kind: synthesize\n", "    kind: synthesize\n    budget: {cost: 0.0015}\n")
    results = capitals.run("clean_notes", "questions")
    assert results["questions"].status == "partial"
    assert 0 < capitals.sent < 8
    assert results["questions"].counts.cost <= 0.0015


def test_printing_null_is_an_error_of_the_row_and_makes_no_call(capitals: Space) -> None:
    with (capitals.root / "project/sources/notes.jsonl").open("a") as file:
        file.write('{"id": "nn", "topic": null, "text": "A place without a topic."}\n')
    results = capitals.run("clean_notes", "questions")
    assert capitals.sent == 8
    assert results["questions"].counts.rows == 8
    assert {row["reason"] for row in capitals.rows("select reason from questions__errors")} == {"render"}


def test_where_lets_only_matching_rows_in(capitals: Space) -> None:
    capitals.edit(MODELS, "    kind: synthesize\n", "    kind: synthesize\n    where: topic like 'J%'\n")
    results = capitals.run("clean_notes", "questions")
    assert results["questions"].counts.rows == 2
    assert capitals.sent == 2


def test_a_server_that_is_not_there_is_an_error_that_loses_nothing(capitals: Space) -> None:
    before = capitals.run()
    capitals.edit("prompts/ask.md", "Write one", "Write an")
    capitals.server.stop()
    try:
        results = capitals.run()
    finally:
        capitals.server.start()
    assert results["questions"].status == "error"
    assert "no row has an answer" in results["questions"].reason
    assert capitals.digests()["questions"] == before["questions"].table


def test_rows_have_ids_parents_and_calls(capitals: Space) -> None:
    capitals.run()
    rows = capitals.rows("select * from answers")
    assert list(rows[0])[-3:] == ["_bq_id", "_bq_parent", "_bq_calls"]
    assert list(rows[0])[:-3] == ["id", "topic", "text", "grade", "question", "answer", "answer_before"]
    assert len({row["_bq_id"] for row in rows}) == 8
    parents = {row["_bq_id"] for row in capitals.rows("select _bq_id from clean_notes")}
    assert {row["_bq_parent"] for row in capitals.rows("select * from questions")} == parents
    assert all(len(row["_bq_calls"]) == 1 for row in rows)


def test_the_errors_of_a_model_can_be_read_before_there_are_any(bare: Space) -> None:
    bare.write("prompts/ask.md", "Ask about {{ topic }}. Answer in JSON.")
    bare.write(
        "models/m.yml",
        "models: [{name: q, kind: synthesize, from: notes, prompt: ask, llm: writer, "
        "output: {format: json, columns: {question: string}}}]",
    )
    bare.write("models/problems.sql", "select reason, count(*) as rows from {{ ref('q__errors') }} group by reason")
    assert statuses(bare.run()) == {"q": "success", "problems": "success"}
    assert bare.rows("select * from problems") == []


def test_a_refined_column_can_be_refined_again(bare: Space) -> None:
    bare.write("prompts/improve.md", "Improve: {{ topic }}")
    refine = "kind: refine, prompt: improve, llm: writer, output: {columns: {topic: string}}"
    bare.write(
        "models/m.yml", f"models: [{{name: once, from: notes, {refine}}}, {{name: twice, from: once, {refine}}}]"
    )
    assert statuses(bare.run()) == {"once": "success", "twice": "success"}
    once = {row["id"]: row for row in bare.rows("select * from once")}
    twice = bare.rows("select * from twice")
    assert list(twice[0])[:3] == ["id", "topic", "topic_before"]
    assert all(row["topic_before"] == once[row["id"]]["topic"] != row["topic"] for row in twice)


def test_on_error_null_is_a_word_however_it_is_written(capitals: Space) -> None:
    capitals.edit(MODELS, "    kind: synthesize\n", "    kind: synthesize\n    on_error: null\n")
    capitals.server.answer = lambda body: "no" if "Brazil" in str(body) else default_answer(body)
    assert capitals.run("clean_notes", "questions")["questions"].counts.rows == 8


def test_refine_keeps_the_old_value_though_its_type_was_another(bare: Space) -> None:
    bare.write("prompts/improve.md", "Improve: {{ id }}")
    bare.write(
        "models/m.yml",
        "models: [{name: better, kind: refine, from: notes, prompt: improve, llm: writer, max_error_rate: 1, "
        "output: {columns: {id: string}}}]",
    )
    bare.server.answer = lambda body: "9" if "Improve: 1" in str(body) else ""
    bare.run()
    rows = bare.rows("select id, id_before from better order by id_before")
    assert rows == [{"id": "9", "id_before": 1}, {"id": "2", "id_before": 2}, {"id": "3", "id_before": 3}]


def test_a_ballot_that_cannot_be_used_spoils_no_row(bare: Space) -> None:
    bare.write("prompts/label.md", "How wet is {{ topic }}, from 1 to 5?")
    bare.write(
        "models/m.yml",
        "models: [{name: wet, kind: annotate, from: notes, prompt: label, llm: writer, votes: 3, on_error: fail, "
        "output: {format: choice, columns: {wetness: {scale: [1, 5]}}}}]",
    )
    spoiled = [True]

    def answer(body: dict[str, Any]) -> str:
        if len(body["messages"]) > 1:
            return "who knows"
        return "who knows" if "rain" in str(body) and spoiled and spoiled.pop() else "4"

    bare.server.answer = answer
    assert statuses(bare.run()) == {"wet": "success"}
    rows = bare.rows("select topic, wetness, wetness_agreement from wet")
    assert {(row["wetness"], row["wetness_agreement"]) for row in rows} == {(4, 1.0)}
    assert [row["reason"] for row in bare.rows("select reason from wet__errors")] == ["unparsable"]
