from __future__ import annotations

import json

from tests.cli.conftest import Bqbuild
from tests.llm_server import LlmServer
from tests.space import Space


def test_a_plan_says_what_why_and_what_it_can_cost(bqbuild: Bqbuild, built: Space, llm_server: LlmServer) -> None:
    built.edit("prompts/ask.md", "Write one question", "Write a question")
    llm_server.clear()
    done = bqbuild("plan")
    assert done.code == 0
    assert "build  questions" in done.out
    assert "8 new calls" in done.out
    assert "prompt `ask` changed (prompts/ask.md" in done.out
    assert "maybe  answers" in done.out
    assert "depends on what `questions` will contain" in done.out
    assert "1 build, 3 maybe, 1 cached" in done.out
    assert not llm_server.requests


def test_json_has_the_documented_form_and_is_kept(bqbuild: Bqbuild, capitals: Space) -> None:
    document = bqbuild("plan", "--json").json()
    by_name = {node["name"]: node for node in document["nodes"]}
    assert set(by_name) == {"clean_notes", "questions", "answers", "labelled", "kept"}
    questions = by_name["questions"]
    assert questions["action"] == "build"
    assert questions["calls"] == {"new": 8, "cached": 0}
    assert set(questions["reasons"][0]) == {"code", "message", "file", "line"}
    assert by_name["answers"]["calls"]["new"] == {"at_most": 8}
    kept = json.loads(capitals.read(".bqbuild/dev/plan.json"))
    assert kept["nodes"] == document["nodes"]
    assert kept["totals"] == document["totals"]


def test_exit_code_says_whether_there_is_something_to_do(bqbuild: Bqbuild, capitals: Space) -> None:
    assert bqbuild("plan", "--exit-code").code == 1
    assert bqbuild("plan").code == 0
    bqbuild("run")
    done = bqbuild("plan", "--exit-code")
    assert done.code == 0
    assert done.out == "Nothing to do: 5 models are up to date.\n"


def test_markdown_is_a_table_for_a_pull_request(bqbuild: Bqbuild, built: Space) -> None:
    built.edit("prompts/improve.md", "Improve", "Do improve")
    lines = bqbuild("plan", "--markdown").out.splitlines()
    assert lines[0].startswith("**1 build, 2 maybe, 2 cached")
    assert lines[2].startswith("| model | kind | action |")
    assert lines[4].startswith("| `answers` | refine | build |")
    assert "prompt `improve` changed" in lines[4]


def test_a_plan_moves_no_pointer(bqbuild: Bqbuild, capitals: Space) -> None:
    bqbuild("plan")
    assert bqbuild("show", "clean_notes").code == 1
