"""C10: `--full-refresh` and `version:` build again; `--refresh-calls` pays again, on purpose, with a new epoch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bqbuild.core.errors import StoreError, UsageError
from bqbuild.run.options import RunOptions
from tests.llm_server import Body, Fault, default_answer
from tests.rules.test_c7_the_same_from_any_road import clean_build
from tests.space import Space, statuses
from tests.waiting import wait_until

MODELS = "models/models.yml"
PROFILES = "project/profiles.yml"
REFRESH = RunOptions(refresh_calls=True)
LLM_MODELS = ("questions", "answers", "labelled")


def change_of_mind(body: Body) -> str:
    """Other questions and answers than before; the same labels."""
    return default_answer(body).replace("What is", "Who was").replace("It is", "It was").replace("Answer", "Reply")


@pytest.fixture
def changed(built: Space) -> Space:
    """The project, built; the LLM has changed its mind since."""
    built.edit(PROFILES, "retries: 6", "retries: 0")
    built.server.answer = change_of_mind
    return built


def test_c10_full_refresh_builds_again_without_a_call(built: Space) -> None:
    before = built.digests()
    results = built.run(options=RunOptions(full_refresh=True))
    assert set(statuses(results).values()) == {"success"}
    assert (built.sent, built.digests()) == (0, before)


def test_c10_a_version_builds_its_node_again_without_a_call(built: Space) -> None:
    built.edit(MODELS, "    kind: synthesize\n", "    kind: synthesize\n    version: 2\n")
    step = next(step for step in built.plan().steps if step.name == "questions")
    assert (step.action, step.new_calls.value, step.cached_calls.value) == ("build", 0, 8)
    results = built.run()
    assert statuses(results)["questions"] == "success"
    assert statuses(results)["answers"] == "cached"
    assert built.sent == 0


def test_c10_plan_full_refresh_costs_nothing(built: Space) -> None:
    made = built.plan(full_refresh=True)
    assert {step.action for step in made.steps} == {"build"}
    assert made.totals()["calls"] == {"new": 0, "cached": 24}


def test_c10_refresh_calls_pays_for_every_call_once_more_and_then_there_is_nothing_to_do(
    changed: Space, tmp_path: Path
) -> None:
    before = changed.digests()
    results = changed.run(options=REFRESH)
    assert changed.sent == 24
    assert {name: results[name].counts.new_calls for name in LLM_MODELS} == dict.fromkeys(LLM_MODELS, 8)
    assert "--refresh-calls" in results["questions"].reason
    assert all(row["question"].startswith("Who was") for row in changed.rows("select question from kept"))
    after = changed.digests()
    assert after["questions"] != before["questions"]
    assert set(statuses(changed.run()).values()) == {"cached"}
    assert (changed.sent, changed.digests()) == (0, after)
    assert clean_build(changed, tmp_path / "clean").digests() == after


def test_c10_refresh_calls_asks_only_for_what_is_selected(changed: Space, tmp_path: Path) -> None:
    results = changed.run("labelled", options=REFRESH)
    assert changed.sent == 8
    assert set(results) == {"labelled"}
    changed.run()
    assert changed.sent == 0
    assert clean_build(changed, tmp_path / "clean").digests() == changed.digests()


def test_c10_every_refresh_pays_again(changed: Space) -> None:
    changed.run("questions", options=REFRESH)
    changed.run("questions", options=REFRESH)
    assert changed.sent == 8


def test_c10_plan_shows_what_a_refresh_costs_and_sends_nothing(changed: Space) -> None:
    already = len(changed.server.requests)
    steps = {str(step.name): step for step in changed.plan(refresh_calls=True).steps}
    assert (steps["questions"].action, steps["questions"].new_calls.json()) == ("build", 8)
    assert steps["questions"].reasons[0].code == "refresh"
    assert steps["answers"].new_calls.json() == {"at_most": 8}
    assert len(changed.server.requests) == already
    assert changed.plan().is_empty


def test_c10_a_refresh_reaches_another_model_that_makes_the_same_requests(changed: Space, tmp_path: Path) -> None:
    _write_twin(changed)
    changed.run("twin")
    assert changed.sent == 0
    changed.run("questions", options=REFRESH)
    step = next(step for step in changed.plan("twin").steps if step.name == "twin")
    assert (step.action, step.reasons[0].code) == ("build", "refreshed")
    assert step.reasons[0].message == "8 of its answers were asked for again"
    results = changed.run()
    assert statuses(results)["twin"] == "success"
    assert all("Improve" in str(body) or "difficult" in str(body) for body in changed.server.requests[-changed.sent :])
    both = "select question from {} order by 1"
    assert changed.rows(both.format("twin")) == changed.rows(both.format("questions"))
    assert clean_build(changed, tmp_path / "clean").digests() == changed.digests()
    assert set(statuses(changed.run()).values()) == {"cached"}


def test_c10_a_refresh_reaches_another_environment(changed: Space) -> None:
    other = changed.read(PROFILES).partition("  dev:\n")[2]
    other = other.replace("store:", "environment: prod\n    store:")
    changed.write(PROFILES, changed.read(PROFILES) + "  prod:\n" + other)
    changed.run(target="prod")
    assert changed.sent == 0
    changed.run(options=REFRESH)
    changed.run(target="prod")
    assert changed.sent == 0
    assert changed.digests(target="prod") == changed.digests()


def test_c10_a_model_without_calls_of_those_is_left_alone(changed: Space) -> None:
    changed.write("prompts/other.md", "Something else about {{ topic }}.")
    changed.write(
        "models/other.yml",
        "models: [{name: other, kind: synthesize, from: clean_notes, prompt: other, llm: writer, "
        "output: {columns: {fact: string}}}]",
    )
    changed.run("other")
    changed.run("questions", options=REFRESH)
    assert statuses(changed.run())["other"] == "cached"


def test_c10_replies_that_left_no_row_are_not_forgotten(changed: Space, tmp_path: Path) -> None:
    """A reply of no items is named in no table."""
    changed.edit(MODELS, "question: string, answer: string}}", "question: string, answer: string}, explode: true}")
    changed.server.answer = lambda body: "[]" if "Answer in JSON" in str(body) else default_answer(body)
    changed.edit("prompts/ask.md", "Write one", "Write a")
    changed.run("questions")
    assert changed.rows("select * from questions") == []
    _write_twin(changed)
    changed.run("twin")
    changed.server.answer = change_of_mind
    changed.run("questions", options=REFRESH)
    assert changed.run("twin")["twin"].counts.rows == 8
    assert changed.sent == 0


def test_c10_a_judges_verdicts_are_asked_for_again(changed: Space) -> None:
    changed.write("prompts/verdict.md", "Is this a good question, yes or no?\n{{ topic }}: {{ question }}\n")
    changed.edit(
        MODELS,
        '      - {name: long_enough, sql: "length(question) > 3"}\n',
        "      - name: good\n        judge: {prompt: verdict, llm: writer, accept: \"verdict = 'yes'\", "
        "output: {format: choice, columns: {verdict: {values: ['yes', 'no']}}}}\n",
    )
    changed.server.answer = lambda body: "yes" if "good question" in str(body) else default_answer(body)
    assert changed.run()["kept"].counts.rows == 8
    changed.server.answer = lambda body: "no" if "good question" in str(body) else default_answer(body)
    assert changed.run("kept", options=REFRESH)["kept"].counts.rows == 0
    assert changed.sent == 8
    changed.run()
    assert changed.sent == 0


def test_c10_a_call_without_a_new_answer_keeps_its_earlier_one_and_the_same_command_asks_again(
    changed: Space, tmp_path: Path
) -> None:
    changed.server.fault = lambda body, number: Fault(status=500) if "Japan" in str(body) else None
    results = changed.run("questions", options=REFRESH)
    assert results["questions"].status == "partial"
    assert results["questions"].reason.startswith("2 answers are the earlier ones: no new one came")
    assert results["questions"].counts.rows == 8
    starts = changed.rows("select question[:3] as how, count(*) as n from questions group by 1 order by 1")
    assert starts == [{"how": "Wha", "n": 2}, {"how": "Who", "n": 6}]
    clean = clean_build(changed, tmp_path / "clean", "questions")
    assert clean.digests()["questions"] == changed.digests()["questions"]
    assert statuses(changed.run("questions"))["questions"] == "cached"
    changed.server.fault = lambda body, number: None
    assert statuses(changed.run("questions", options=REFRESH))["questions"] == "success"
    assert changed.sent == 2


def test_c10_a_budget_holds_back_a_refresh_and_takes_nothing_away(changed: Space) -> None:
    changed.edit(MODELS, "    kind: synthesize\n", "    kind: synthesize\n    budget: {calls: 5}\n")
    results = changed.run("questions", options=REFRESH)
    assert (results["questions"].status, changed.sent, results["questions"].counts.rows) == ("partial", 5, 8)
    assert "the budget of 5 calls is spent" in results["questions"].reason
    assert statuses(changed.run("questions", options=REFRESH))["questions"] == "success"
    assert changed.sent == 3


@pytest.mark.parametrize("answered", [3, 11, 20])
def test_c10_a_refresh_that_was_killed_goes_on_and_pays_for_nothing_twice(
    changed: Space, tmp_path: Path, answered: int
) -> None:
    _kill_refresh(changed, answered)
    changed.server.fault = lambda body, number: None
    changed.server.clear()
    results = changed.run(options=REFRESH)
    assert set(statuses(results).values()) <= {"success", "cached"}
    assert len(changed.server.requests) == 24 - answered
    assert all(row["question"].startswith("Who was") for row in changed.rows("select question from kept"))
    assert clean_build(changed, tmp_path / "clean").digests() == changed.digests()
    assert set(statuses(changed.run()).values()) == {"cached"}


def test_c10_a_plain_run_after_a_kill_pays_nothing_and_is_what_the_log_gives(changed: Space, tmp_path: Path) -> None:
    _kill_refresh(changed, 5)
    changed.server.fault = lambda body, number: None
    changed.run("questions")
    assert changed.sent == 0
    clean = clean_build(changed, tmp_path / "clean", "questions")
    assert clean.digests()["questions"] == changed.digests()["questions"]
    assert statuses(changed.run("questions"))["questions"] == "cached"
    changed.run("questions", "answers", "labelled", "kept", "clean_notes", options=REFRESH)
    assert changed.sent == 19


def test_c10_two_refreshes_at_once_are_refused(changed: Space) -> None:
    with changed.session() as session, session.store.epochs.begin({"what": "test"}):
        with pytest.raises(StoreError, match="another process asks for answers again"):
            changed.run(options=REFRESH)


def test_c10_a_refresh_without_an_llm_is_a_usage_error(built: Space) -> None:
    with pytest.raises(UsageError, match="none of the selected models calls an LLM"):
        built.run("clean_notes", options=REFRESH)


def test_c10_a_store_without_epochs_has_no_trace_of_them(built: Space) -> None:
    assert not (built.root / ".bqbuild/v1/calls/epochs").exists()
    assert b'"epoch"' not in b"".join(path.read_bytes() for path in (built.root / ".bqbuild/v1/traces").rglob("*.json"))


def test_c10_a_damaged_list_of_replaced_calls_is_taken_to_name_all(changed: Space) -> None:
    changed.run("labelled", options=REFRESH)
    (keys,) = (changed.root / ".bqbuild/v1/calls/epochs").glob("*.keys")
    keys.write_bytes(b"0" + keys.read_bytes()[1:])
    results = changed.run()
    assert statuses(results)["questions"] == "success"
    assert changed.sent == 0


def _write_twin(space: Space) -> None:
    """A model with the requests of `questions` and another table."""
    twin = space.read(MODELS).split("  - name: answers")[0].split("  - name: questions")[1]
    space.write("models/twin.yml", f"models:\n  - name: twin{twin}    carry: [topic]\n")


def _kill_refresh(space: Space, answered: int) -> None:
    space.edit(PROFILES, "max_concurrency: 64", "max_concurrency: 1")
    space.server.clear()
    space.server.fault = lambda body, number: Fault(delay=60) if number > answered else None
    command = [sys.executable, "-m", "bqbuild.cli.main", "run", "--refresh-calls"]
    environment = {**os.environ, "LLM_URL": space.server.url}
    killed = subprocess.Popen(command, cwd=space.root, env=environment, stderr=subprocess.DEVNULL)
    journal = space.root / ".bqbuild/v1/calls"
    wait_until(lambda: sum(path.read_bytes().count(b"\n") for path in journal.glob("journal-*.jsonl")) == answered)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
