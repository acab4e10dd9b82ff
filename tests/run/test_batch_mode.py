"""`mode: batch` in whole runs: the same tables as online, and nothing sent or paid for twice whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bqbuild.core.events import BatchProgress, Event, Warned
from bqbuild.core.records import NodeName
from bqbuild.run.checks import check_connections
from bqbuild.run.execute import run
from bqbuild.run.options import RunOptions
from tests.batch_server import BatchServer, refusal
from tests.space import Space, statuses

RUN = [sys.executable, "-m", "bqbuild.cli.main", "run"]
ONLINE = "        timeout: 120\n"
CHOICE = "{format: choice, columns: {verdict: {values: [low, high]}}}"
BATCH = "        timeout: 120\n        mode: batch\n        batch: {quiet: 0.05, poll: 0.05}\n"


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer() as running:
        yield running


@pytest.fixture
def batched(tmp_path: Path, server: BatchServer) -> Space:
    """The project `capitals`, whose calls go by batch: 8 questions, then 8 answers, then 8 labels."""
    space = Space.copy("capitals", tmp_path / "batched", server)
    space.edit("project/profiles.yml", ONLINE, BATCH)
    return space


@pytest.fixture
def online(tmp_path: Path, server: BatchServer) -> Space:
    """The same project online."""
    return Space.copy("capitals", tmp_path / "online", server)


def _command(space: Space, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        RUN,
        cwd=space.root,
        env={**os.environ, "LLM_URL": space.server.url, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def _killed_at(space: Space, server: BatchServer, step: str, number: int = 1) -> None:
    """Run the project in a process that is killed when the provider is at a step for the nth time."""
    seen = 0

    def kill(where: str) -> bool:
        nonlocal seen
        seen += where == step
        if where != step or seen != number:
            return False
        os.kill(running.pid, signal.SIGKILL)
        return True

    server.break_off = kill
    running = _command(space)
    running.communicate(timeout=60)
    assert running.returncode == -signal.SIGKILL
    server.break_off = lambda where: False


def test_tables_are_the_same_as_online(batched: Space, online: Space, server: BatchServer) -> None:
    results = batched.run()
    assert set(statuses(results).values()) == {"success"}
    assert server.sizes() == [8, 8, 8]
    assert not server.requests
    online.run()
    assert batched.digests() == online.digests()


def test_what_was_bought_one_way_is_not_bought_the_other_way(batched: Space, server: BatchServer) -> None:
    batched.run()
    batched.edit("project/profiles.yml", "mode: batch", "mode: online")
    assert batched.plan().is_empty
    batched.edit("prompts/ask.md", "Write one question", "Write a question")
    batched.run()
    assert len(server.requests) == 24
    batched.edit("project/profiles.yml", "mode: online", "mode: batch")
    batched.edit("prompts/ask.md", "Write a question", "Write one question")
    assert set(statuses(batched.run()).values()) <= {"success", "cached"}
    assert server.sizes() == [8, 8, 8]


def test_calls_are_counted_at_the_price_of_batches(batched: Space, online: Space) -> None:
    results, dear = batched.run(), online.run()
    for name in ("questions", "answers", "labelled"):
        assert results[name].counts.new_calls == dear[name].counts.new_calls == 8
        assert results[name].counts.cost == pytest.approx(dear[name].counts.cost / 2)


def test_the_plan_bounds_the_cost_at_the_price_of_batches(batched: Space, online: Space) -> None:
    cheap, dear = (space.plan("clean_notes", "questions").sums()[-1].value for space in (batched, online))
    assert cheap
    assert dear
    assert cheap == pytest.approx(dear / 2)


def test_the_plan_says_that_calls_go_by_batch_and_what_is_under_way(batched: Space, server: BatchServer) -> None:
    def said() -> list[str]:
        steps = batched.plan("clean_notes", "questions").steps
        return [reason.message for step in steps for reason in step.reasons if reason.code == "batch"]

    assert said() == ["its calls go by batch over `writer`: answers can take hours"]
    _killed_at(batched, server, "after look")
    assert said() == [
        "its calls go by batch over `writer`: answers can take hours; "
        "a batch of 8 calls is under way and is not sent again"
    ]


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("before upload", 1),
        ("after upload", 1),
        ("before create", 1),
        ("after create", 1),
        ("after look", 2),
        ("before content", 1),
        ("after content", 2),
    ],
)
def test_d1_a_killed_run_s_batch_is_adopted_and_nothing_is_sent_twice(
    batched: Space, online: Space, server: BatchServer, step: str, number: int
) -> None:
    _killed_at(batched, server, step, number)
    results = batched.run()
    assert set(statuses(results).values()) <= {"success", "cached"}
    assert server.counts["upload"] == server.counts["create"] == 3
    assert server.sizes() == [8, 8, 8]
    assert len(server.answered) == 24
    assert not list(batched.root.rglob("batches/*"))
    online.run()
    assert batched.digests() == online.digests()


def test_d1_a_kill_between_two_files_of_answers_keeps_what_was_recorded(batched: Space, server: BatchServer) -> None:
    server.outcome = lambda body, number: refusal(500) if len(server.batches) == 1 and number == 3 else {}
    _killed_at(batched, server, "before content", 2)
    batched.run()
    assert sum(server.sizes()) == 25
    assert len(server.answered) == 24


def test_a_killed_run_s_batch_answers_rows_that_changed_meanwhile_when_they_come_back(
    batched: Space, server: BatchServer
) -> None:
    _killed_at(batched, server, "before look")
    batched.edit("prompts/ask.md", "Write one question", "Write a question")
    batched.run()
    batched.edit("prompts/ask.md", "Write a question", "Write one question")
    batched.run()
    assert len(server.answered) == len({str(body) for body in server.answered})
    assert server.sizes()[0] == 8
    assert sum(server.sizes()) == 48


def test_a_killed_run_s_batch_is_found_by_another_project_on_the_same_store(
    batched: Space, tmp_path: Path, server: BatchServer
) -> None:
    batched.edit("project/profiles.yml", "store: .bqbuild", f"store: {tmp_path / 'shared'}")
    _killed_at(batched, server, "before look")
    other = Space.copy("capitals", tmp_path / "other", server)
    other.edit("project/bqbuild.yml", "name: capitals", "name: others")
    other.edit("project/profiles.yml", ONLINE, BATCH)
    other.edit("project/profiles.yml", "store: .bqbuild", f"store: {tmp_path / 'shared'}")
    other.run()
    assert server.sizes() == [8, 8, 8]


def test_two_runs_at_once_send_no_call_twice(batched: Space, tmp_path: Path, server: BatchServer) -> None:
    """Two projects with one store: other nodes, the same calls."""
    batched.edit("project/profiles.yml", "store: .bqbuild", f"store: {tmp_path / 'shared'}")
    other = Space.copy("capitals", tmp_path / "other", server)
    for path in ("project/profiles.yml", "project/bqbuild.yml"):
        other.write(path, batched.read(path))
    other.edit("project/bqbuild.yml", "name: capitals", "name: others")
    other.edit("models/models.yml", "  - name: kept\n", "  - name: kept\n    version: 2\n")
    server.looks = 10
    runs = [_command(batched), _command(other)]
    for running in runs:
        running.communicate(timeout=60)
    assert [running.returncode for running in runs] == [0, 0]
    assert len(server.answered) == 24
    assert batched.digests() == other.digests()


def test_a_row_that_keeps_failing_is_missing_and_the_next_run_sends_it_alone(
    batched: Space, server: BatchServer
) -> None:
    batched.edit("project/profiles.yml", "retries: 6", "retries: 1")
    bad: list[str] = []

    def outcome(body: dict[str, object], number: int) -> dict[str, object]:
        if not bad:
            bad.append(str(body))
        return refusal(503) if str(body) == bad[0] else {}

    server.outcome = outcome
    results = batched.run("clean_notes", "questions")
    assert results["questions"].status == "partial"
    assert results["questions"].counts.failed_calls == 1
    assert server.sizes() == [8, 1]
    assert batched.rows("select reason, answered from questions__errors") == [{"reason": "server", "answered": False}]
    server.outcome = lambda body, number: {}
    assert batched.run("clean_notes", "questions")["questions"].status == "success"
    assert server.sizes() == [8, 1, 1]


def test_an_unusable_answer_is_asked_for_again_in_a_following_batch(batched: Space, server: BatchServer) -> None:
    good = server.answer
    server.answer = lambda body: "nonsense" if len(server.batches) == 1 and body["messages"][-1] else good(body)
    results = batched.run("clean_notes", "questions")
    assert results["questions"].counts.new_calls == 16
    assert server.sizes() == [8, 8]


def test_a_budget_holds_for_batches_too(batched: Space, server: BatchServer) -> None:
    batched.edit("models/models.yml", "    matrix:", "    budget: {calls: 5}\n    matrix:")
    results = batched.run("clean_notes", "questions")
    assert results["questions"].status == "partial"
    assert server.sizes() == [5]
    assert batched.run("clean_notes", "questions")["questions"].status == "success"
    assert server.sizes() == [5, 3]


def test_a_budget_in_dollars_is_never_crossed(batched: Space, server: BatchServer) -> None:
    batched.edit("models/models.yml", "    matrix:", "    budget: {cost: 0.001}\n    matrix:")
    results = batched.run("clean_notes", "questions")
    assert results["questions"].status == "partial"
    assert 0 < sum(server.sizes()) < 8
    assert results["questions"].counts.cost <= 0.001


def test_a_judge_asks_by_batch(batched: Space, server: BatchServer) -> None:
    batched.write("prompts/fit.md", "user:\nIs this fit? Answer one of: yes, no\n{{ question }}\n")
    batched.edit(
        "models/models.yml",
        "    rules:\n",
        "    rules:\n"
        "      - name: fit\n"
        "        judge: {prompt: fit, llm: writer, accept: \"fit = 'yes'\",\n"
        "                output: {format: choice, columns: {fit: {values: ['yes', 'no']}}}}\n",
    )
    results = batched.run()
    assert results["kept"].status == "success"
    assert server.sizes() == [8, 8, 8, 8]


def test_ctrl_c_leaves_the_batch_at_the_provider_and_says_so(batched: Space, server: BatchServer) -> None:
    def interrupt(step: str) -> bool:
        if step == "after look":
            running.send_signal(signal.SIGINT)
        return False

    server.looks = 10**6
    server.break_off = interrupt
    running = _command(batched)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in said
    assert "a batch of 8 calls goes on at the provider; the next `bqbuild run` collects the answers" in said
    server.break_off = lambda step: False
    for batch in server.batches.values():
        batch.left = 1
    server.looks = 1
    batched.run()
    assert server.sizes() == [8, 8, 8]


def test_progress_tells_how_far_a_batch_is(batched: Space) -> None:
    told: list[Event] = []
    with batched.session() as session:
        run(session, [NodeName("clean_notes"), NodeName("questions")], RunOptions(), [told.append])
    assert len({event.batch for event in told if isinstance(event, BatchProgress)}) == 1
    steps = [(event.status, event.done, event.total) for event in told if isinstance(event, BatchProgress)]
    assert steps == [
        ("uploading", 0, 8),
        ("in_progress", 0, 8),
        ("in_progress", 0, 8),
        ("completed", 8, 8),
        ("collecting", 8, 8),
        ("ended", 0, 8),
    ]
    assert not [event for event in told if isinstance(event, Warned)]


def test_debug_asks_a_batch_connection_for_its_batches(batched: Space, server: BatchServer) -> None:
    with batched.session() as session:
        (well,) = check_connections(session)
        server.status_of = lambda step: 404
        (ill,) = check_connections(session)
    assert well.is_well
    assert (ill.is_well, ill.message) == (False, "nothing answers at /v1/batches (HTTP 404): batches says 404")
    assert "mode: online" in str(ill.hint)
    assert not server.batches


def test_a_batch_needs_a_provider_that_has_batches(batched: Space) -> None:
    batched.edit("project/profiles.yml", "provider: openai", "provider: embedded")
    with pytest.raises(
        Exception, match=re.escape("`mode: batch` needs `provider: openai`; `embedded` has no Batch API")
    ):
        batched.plan()


def test_calls_that_are_paid_again_are_not_answered_by_an_earlier_batch(batched: Space, server: BatchServer) -> None:
    batched.run("clean_notes", "questions")
    _killed_at(batched, server, "after create")
    assert server.sizes() == [8, 8]
    batched.run("clean_notes", "questions", options=RunOptions(refresh_calls=True))
    assert server.sizes() == [8, 8, 8]
    assert [body["temperature"] for body in server.answered[:8]] == [0.7] * 8
    batched.run()
    assert sum(server.sizes()) == 8 + 8 + 8 + 8


def test_a_refresh_that_was_killed_adopts_its_own_batch(batched: Space, server: BatchServer) -> None:
    batched.run("clean_notes", "questions")
    renewed = RunOptions(refresh_calls=True)

    def stop(step: str) -> bool:
        return step == "before look"

    batched.edit("project/profiles.yml", "retries: 6", "retries: 0")
    server.break_off = stop
    batched.run("clean_notes", "questions", options=renewed)
    server.break_off = lambda step: False
    batched.run("clean_notes", "questions", options=renewed)
    assert server.sizes() == [8, 8]
    assert len(server.answered) == 16


def test_judges_that_wait_in_threads_leave_threads_to_the_batches(batched: Space) -> None:
    models = "sources:\n  - {name: notes, path: sources/notes.jsonl, key: [id]}\nmodels:\n"
    many = 4 + 2 * (os.cpu_count() or 1) + 4  # more than Python keeps threads by itself on a small machine
    for number in range(many):
        batched.write(f"prompts/judge_{number}.md", f"Number {number}. One of: low, high. {{{{ topic }}}}\n")
        judge = f"{{prompt: judge_{number}, llm: writer, accept: \"verdict = 'low'\", output: {CHOICE}}}"
        models += f"  - name: kept_{number}\n    kind: filter\n    from: clean_notes\n    rules:\n"
        models += f"      - {{name: once, dedup: {{columns: [topic]}}}}\n      - {{name: judged, judge: {judge}}}\n"
    batched.write("models/models.yml", models)
    batched.server.answer = lambda body: "low"
    results = batched.run(options=RunOptions(threads=many))
    assert set(statuses(results).values()) == {"success"}
