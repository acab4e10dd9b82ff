"""The plan against the run: what is foretold exactly must come true exactly, and nothing is sent to find it out."""

from __future__ import annotations

from typing import Any

import pytest

from bqbuild.core.events import NodeStarted
from bqbuild.plan.plan import Step
from bqbuild.run.execute import run
from bqbuild.run.options import RunOptions
from tests.llm_server import default_answer
from tests.space import Space, statuses

QUESTIONS = """
models:
  - name: questions
    kind: synthesize
    from: notes
    prompt: ask
    llm: writer
    output: {format: json, columns: {question: string, answer: string}}
"""
JUDGED = """
models:
  - name: kept
    kind: filter
    from: notes
    rules:
      - {name: not_rain, sql: "topic != 'rain'"}
      - name: good
        judge:
          prompt: judge
          llm: writer
          accept: score >= 1
          output: {format: choice, columns: {score: {scale: [1, 5]}}}
"""


@pytest.fixture
def asking(bare: Space) -> Space:
    """Three notes, a question each."""
    bare.write("prompts/ask.md", "Ask about {{ topic }}. Answer in JSON.")
    bare.write("models/m.yml", QUESTIONS)
    return bare


@pytest.fixture
def judging(bare: Space) -> Space:
    """A filter with a row rule and a judge after it."""
    bare.write("prompts/judge.md", "Is {{ topic }} good, from 1 to 5?")
    bare.write("models/m.yml", JUDGED)
    return bare


def step(space: Space, name: str) -> Step:
    """What is planned for a model; nothing may be sent for it, and no pointer moved."""
    sent, pointers = len(space.server.requests), space.digests()
    found = next(step for step in space.plan().steps if step.name == name)
    assert len(space.server.requests) == sent
    assert space.digests() == pointers
    return found


def calls(space: Space, name: str) -> tuple[Any, Any]:
    """The new and the cached calls that are planned."""
    planned = step(space, name)
    return planned.new_calls.json(), planned.cached_calls.json()


def test_calls_of_a_second_wave_that_are_recorded_are_foreseen(asking: Space) -> None:
    asking.server.answer = lambda body: "no" if "rain" in str(body) else default_answer(body)
    asking.run()
    assert asking.sent == 4  # one was asked twice
    asking.edit("models/m.yml", "output: {format: json,", "output: {format: json, max_items: 9,")
    assert calls(asking, "questions") == (0, 4)
    counts = asking.run()["questions"].counts
    assert (counts.new_calls, counts.cached_calls) == (0, 4)


def test_replies_that_another_parser_cannot_use_are_foreseen_to_be_asked_again(asking: Space) -> None:
    asking.run()
    asking.edit("models/m.yml", "answer: string", "solution: string")
    assert calls(asking, "questions") == (3, 3)
    assert asking.run()["questions"].counts.new_calls == 3
    assert asking.sent == 3


def test_a_round_more_is_foreseen_with_the_rounds_that_are_recorded(bare: Space) -> None:
    bare.write("prompts/improve.md", "Improve: {{ topic }}")
    bare.write(
        "models/m.yml",
        "models: [{name: better, kind: refine, from: notes, prompt: improve, llm: writer, rounds: 2, "
        "output: {columns: {topic: string}}}]",
    )
    bare.run()
    bare.edit("models/m.yml", "rounds: 2", "rounds: 3")
    planned = step(bare, "better")
    assert planned.cached_calls.json() == 6
    assert bare.run()["better"].counts.new_calls == 3 <= (planned.new_calls.value or 0)


def test_the_calls_of_a_judge_whose_input_is_known_are_exact(judging: Space) -> None:
    assert calls(judging, "kept") == (2, 0)
    judging.run()
    assert judging.sent == 2
    judging.write("project/sources/notes.csv", judging.read("project/sources/notes.csv") + "4,fog\n5,rain\n")
    assert calls(judging, "kept") == (1, 2)
    judging.run()
    assert judging.sent == 1
    judging.edit("models/m.yml", "score >= 1", "score >= 0")
    planned = step(judging, "kept")
    assert (planned.new_calls.json(), planned.cached_calls.json(), planned.rows.json()) == (0, 3, 3)


def test_going_back_to_what_a_plan_prepared_is_nothing_to_do(bare: Space) -> None:
    bare.write("models/a.sql", "select id, topic from {{ source('notes') }}")
    bare.run()
    bare.write("models/a.sql", "select id, upper(topic) as topic from {{ source('notes') }}")
    assert step(bare, "a").action == "build"
    assert statuses(bare.run()) == {"a": "success"}
    bare.write("models/a.sql", "select id, topic from {{ source('notes') }}")
    assert statuses(bare.run()) == {"a": "cached"}
    bare.write("models/a.sql", "select id, upper(topic) as topic from {{ source('notes') }}")
    assert step(bare, "a").action == "cached"
    assert statuses(bare.run()) == {"a": "cached"}


def test_a_source_without_key_that_gained_a_column_costs_no_call_and_is_advised_to_have_a_key(asking: Space) -> None:
    asking.write("models/sources.yml", "sources: [{name: notes, path: sources/notes.csv}]\n")
    asking.run()
    asking.write("project/sources/notes.csv", "id,topic,seen\n1,rain,yes\n2,snow,no\n3,hail,no\n")
    planned = step(asking, "questions")
    assert (planned.new_calls.json(), planned.cached_calls.json()) == (0, 3)
    assert any("`notes` has no `key`" in reason.message for reason in planned.reasons)
    asking.run()
    assert asking.sent == 0


def test_a_call_that_two_models_want_is_counted_once(asking: Space) -> None:
    asking.edit("models/m.yml", "models:\n", "models:\n" + QUESTIONS.split("models:\n")[1].replace("questions", "same"))
    totals = asking.plan().totals()
    assert totals["calls"] == {"new": 3, "cached": 3}
    asking.run()
    assert asking.sent == 3


def test_what_a_plan_built_a_run_publishes_and_does_not_build_again(asking: Space) -> None:
    asking.write("models/loud.sql", "select id, upper(topic) as topic from {{ source('notes') }}")
    asking.edit("models/m.yml", "from: notes", "from: loud")
    assert step(asking, "loud").action == "build"
    started: list[str] = []
    with asking.session() as session:
        listen = [lambda event: started.append(event.name) if isinstance(event, NodeStarted) else None]
        results = run(session, session.models(), RunOptions(), listen)
    assert started == ["questions"]
    assert {result.name: result.status for result in results} == {
        "notes": "success",
        "loud": "success",
        "questions": "success",
    }
