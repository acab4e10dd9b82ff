"""Filters in a chain: rows stream through their row rules and judges, and come to the same as when they wait."""

from __future__ import annotations

from typing import Any

import pytest

from bqbuild.run.options import RunOptions
from tests.llm_server import Fault, default_answer
from tests.space import Space, statuses

MODELS = "models/models.yml"

RULES = """
      - {name: rich, sql: "length(text) > 20"}
      - name: liked
        judge:
          prompt: verdict
          llm: writer
          output: {format: json, columns: {score: integer}}
          accept: "score >= 2 or grade = 'primary'"
      - {name: short, quality: {column: question, max_chars: 400}}
      - name: loved
        judge:
          prompt: again
          llm: writer
          output: {format: json, columns: {love: integer, topic: string}}
          accept: "love >= 2 and topic <> 'x'"
      - {name: not_brazil, sql: "topic <> 'Brazil'"}
"""

FILTER = "  - name: good\n    kind: filter\n    from: questions\n    rules:{first}{rules}{last}\n"
NOTHING_EQUAL = "\n      - {name: unique, dedup: {columns: [id, grade, question]}}\n"
DEDUP = '      - {name: one_a_topic, dedup: {columns: [topic], keep: "grade DESC"}}\n'


def answer(body: dict[str, Any]) -> str | dict[str, Any]:
    """Verdicts are a function of what is judged."""
    said = str(body["messages"][-1]["content"])
    if said.startswith("Score"):
        return f'{{"score": {sum(map(ord, said)) % 3 + 1}}}'
    if said.startswith("Love"):
        return f'{{"love": {sum(map(ord, said)) % 4 + 1}, "topic": "y"}}'
    return default_answer(body)


@pytest.fixture
def space(capitals: Space) -> Space:
    """The small project, its server judging as well."""
    capitals.server.answer = answer
    capitals.write("prompts/verdict.md", "Score this: {{ question }} {{ topic }}\n")
    capitals.write("prompts/again.md", "Love this: {{ question }} {{ topic }}\n")
    capitals.write("prompts/improve.md", "Improve this for {{ topic }}: {{ answer }}\n")
    return capitals


def declare(space: Space, *, first: str = "\n", last: str = "") -> None:
    """Put the filter between the questions and their answers."""
    text = space.read(MODELS)
    at = text.index("  - name: answers")
    text = text[:at] + FILTER.format(first=first.rstrip(), rules=RULES.rstrip(), last="\n" + last) + text[at:]
    space.write(MODELS, text.replace("    from: questions\n    prompt: improve", "    from: good\n    prompt: improve"))


def step(body: dict[str, Any]) -> str:
    said = str(body["messages"][-1]["content"])
    return next(word for word in ("Write", "Score", "Love", "Improve", "difficult", "") if word in said)


@pytest.mark.parametrize("has_judges", [True, False], ids=["judges", "row rules only"])
def test_a_row_passes_a_filter_while_another_is_still_being_written(space: Space, has_judges: bool) -> None:
    declare(space)
    if not has_judges:
        text = space.read(MODELS)
        for first, last in (("liked", "{name: short"), ("loved", "{name: not_brazil")):
            begin, end = text.index(f"      - name: {first}"), text.index(f"      - {last}")
            text = text[:begin] + text[end:]
        space.write(MODELS, text)
    space.server.fault = lambda body, number: (
        Fault(delay=1.5) if step(body) == "Write" and "France" in str(body) else None
    )
    assert set(statuses(space.run()).values()) == {"success"}
    steps = [(step(body), "France" in str(body)) for body in space.server.requests]
    late = steps.index(("Score" if has_judges else "Improve", True))
    assert steps.index(("Improve", False)) < late, "a refinement before the slow row has come to the filter"


@pytest.mark.parametrize("last", ["", DEDUP], ids=["row rules", "dedup at the end"])
def test_rows_that_stream_come_to_the_same_as_rows_that_wait(space: Space, last: str) -> None:
    declare(space, last=last)
    results = space.run()
    assert set(statuses(results).values()) == {"success"}
    streamed = space.digests()
    rules = {row["_bq_rule"] for row in space.rows("select _bq_rule from good__rejects")}
    assert {"liked", "loved"} <= rules
    sent = sum(step(body) in ("Score", "Love") for body in space.server.requests)
    assert results["good"].counts.new_calls == sent

    space.edit(MODELS, "    rules:\n      - {name: rich", f"    rules:{NOTHING_EQUAL.rstrip()}\n      - {{name: rich")
    waiting = space.run()
    assert space.sent == 0
    assert waiting["good"].status == "success"
    assert {name: space.digests()[name] for name in streamed} == streamed


def test_verdicts_that_are_unusable_reject_and_those_that_do_not_come_wait(space: Space) -> None:
    declare(space)
    space.edit(
        MODELS, "    kind: filter\n    from: questions", "    kind: filter\n    max_error_rate: 1\n    from: questions"
    )
    space.server.answer = lambda body: "no idea" if step(body) == "Score" and "France" in str(body) else answer(body)
    space.server.fault = lambda body, number: (
        Fault(status=400) if step(body) == "Love" and "Japan" in str(body) else None
    )
    results = space.run()
    assert results["good"].status == "partial"
    rejects = space.rows("select topic, _bq_reason from good__rejects where _bq_reason like 'no usable%'")
    assert {row["topic"] for row in rejects} == {"France"}
    assert not space.rows("select 1 from good where topic = 'Japan'")
    errors = space.rows("select cell, answered from good__errors")
    assert {(row["cell"], row["answered"]) for row in errors} == {("liked", True), ("loved", False)}
    space.server.fault = lambda body, number: None
    assert space.run()["good"].status == "success"
    again = [step(body) for body in space.server.requests[-space.sent :]]
    assert "Love" in again
    assert not {"Write", "Score"} & set(again)


def test_a_filter_waits_for_the_tests_of_what_it_reads_beside_its_rows(capitals: Space) -> None:
    capitals.write("models/topics.sql", "select topic from {{ ref('clean_notes') }}\n")
    never = "{accepted_values: {column: topic, values: [never]}}"
    capitals.write("models/topics.yml", f"models:\n  - name: topics\n    tests: [{never}]\n")
    # the chain begins when the topics are built, and their tests are not done
    for number, above in enumerate(("clean_notes", "later_0", "later_1", "later_2")):
        capitals.write(f"models/later_{number}.sql", f"select * from {{{{ ref('{above}') }}}}\n")
    capitals.edit(MODELS, "    from: clean_notes", "    from: later_3")
    rule = "{name: new, decontaminate: {against: [topics], columns: [question], benchmark_columns: [topic]}}"
    declared = f"  - name: good\n    kind: filter\n    from: questions\n    rules:\n      - {rule}\n"
    capitals.write(MODELS, f"{capitals.read(MODELS).rstrip()}\n{declared}")
    results = capitals.run(options=RunOptions(tests=True))
    assert results["topics"].status == "success"
    assert results["good"].status == "skipped"
    assert "`topics` failed its test" in results["good"].reason


@pytest.mark.parametrize("first", ["\n", NOTHING_EQUAL], ids=["rows stream", "the whole table is waited for"])
def test_a_filter_whose_judge_answers_nothing_fails_and_keeps_its_table(space: Space, first: str) -> None:
    declare(space, first=first)
    space.run("questions", "good")
    before = space.digests()
    space.edit("prompts/verdict.md", "Score this", "Score this well")
    space.server.fault = lambda body, number: Fault(status=400) if step(body) == "Score" else None
    failed = space.run("good")["good"]
    assert failed.status == "error"
    assert "no row has an answer" in failed.reason
    assert space.digests() == before
    space.server.fault = lambda body, number: None
    assert space.run("good")["good"].status == "success"
