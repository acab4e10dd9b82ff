"""A judge and a mix inside a whole project: what is paid for, and what comes of interruptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.llm_server import Fault, LlmServer, default_answer
from tests.space import Space, statuses

RULES = """
      - name: judged
        judge:
          prompt: verdict
          llm: writer
          output: {format: json, columns: {score: integer}}
          accept: "score >= 3"
      - {name: near, dedup: {columns: [answer], method: minhash, keep: "length(question) DESC"}}
  - name: mixed
    kind: mix
    from: [kept]
    by: [grade]
    rows: 4
    heldout: 0.3
    text: "{{ question }} {{ answer }}"
    tests: [{unique: {columns: [_bq_id]}}]
"""


def answer(body: dict[str, Any]) -> str | dict[str, Any]:
    """Scores by the question's first letter after `What is`; everything else as the server does by itself."""
    said = str(body["messages"][-1]["content"])
    if said.startswith("Score"):
        return f'{{"score": {sum(map(ord, said)) % 5 + 1}}}'
    return default_answer(body)


@pytest.fixture
def space(tmp_path: Path, llm_server: LlmServer) -> Space:
    """The small project with a judge, near-dedup and a mix behind it."""
    llm_server.answer = answer
    space = Space.copy("capitals", tmp_path / "capitals", llm_server)
    space.write("models/models.yml", space.read("models/models.yml").rstrip() + RULES)
    space.write("prompts/verdict.md", "Score this question: {{ question }}\n")
    return space


def is_verdict(body: dict[str, Any]) -> bool:
    return str(body["messages"][-1]["content"]).startswith("Score")


def test_a_judge_is_paid_once_whatever_is_accepted_later(space: Space) -> None:
    assert set(statuses(space.run()).values()) == {"success"}
    reasons = {row["_bq_reason"] for row in space.rows("from kept__rejects")}
    assert reasons
    assert reasons <= {"judged score = 1", "judged score = 2"}
    before = space.digests()
    space.edit("models/models.yml", "score >= 3", "score >= 1")
    results = space.run()
    assert space.sent == 0
    assert (results["kept"].sides["rejects"], results["kept"].counts.rows) == (0, 8)
    space.edit("models/models.yml", "score >= 1", "score   >=  3  -- as it was")
    space.run()
    assert space.sent == 0
    assert space.digests() == before


def test_verdicts_that_did_not_come_are_asked_for_again_and_the_end_is_the_same(space: Space, tmp_path: Path) -> None:
    space.server.fault = lambda body, number: Fault(status=400) if is_verdict(body) and number % 2 else None
    first = space.run()
    assert first["kept"].status == "partial"
    assert not any(row["answered"] for row in space.rows("from kept__errors"))
    space.server.fault = lambda body, number: None
    space.server.clear()
    assert space.run()["kept"].status == "success"
    assert 0 < sum(map(is_verdict, space.server.requests)) < 8

    undisturbed = Space.copy("capitals", tmp_path / "again", space.server)
    for path in ("models/models.yml", "prompts/verdict.md"):
        undisturbed.write(path, space.read(path))
    undisturbed.run()
    assert undisturbed.digests() == space.digests()


def test_the_split_and_the_strata_of_a_mix_are_there_to_query(space: Space) -> None:
    space.edit("models/models.yml", "score >= 3", "score >= 1")
    space.run()
    rows = space.rows("from mixed")
    assert len(rows) == 4
    assert sorted(row["grade"] for row in rows) == ["primary", "primary", "undergraduate", "undergraduate"]
    assert {row["split"] for row in rows} <= {"train", "heldout"}
    assert list(rows[0])[-3:] == ["_bq_id", "_bq_parent", "_bq_calls"]
    kept = {row["_bq_id"] for row in space.rows("from kept")}
    assert {row["_bq_parent"] for row in rows} <= kept
