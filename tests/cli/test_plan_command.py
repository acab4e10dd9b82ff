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
    assert (
        lines[-1] == "? and $?: `answers`, `labelled` have no `max_tokens`; set it in `params` to bound tokens and cost"
    )
    assert lines[4].startswith("| `answers` | refine | build |")
    assert "prompt `improve` changed" in lines[4]


def test_a_plan_moves_no_pointer(bqbuild: Bqbuild, capitals: Space) -> None:
    bqbuild("plan")
    assert bqbuild("show", "clean_notes").code == 1


def test_a_model_may_be_named_without_select(bqbuild: Bqbuild, capitals: Space) -> None:
    by_argument = bqbuild("plan", "clean_notes", "--json").json()
    assert [node["name"] for node in by_argument["nodes"]] == ["clean_notes"]
    assert bqbuild("plan", "--select", "clean_notes", "--json").json() == by_argument


def test_why_takes_the_key_apart(bqbuild: Bqbuild, built: Space, llm_server: LlmServer) -> None:
    unchanged = bqbuild("plan", "questions", "--why", "--json").json()["nodes"][0]
    assert unchanged["action"] == "cached"
    assert unchanged["key"]["before"] == unchanged["key"]["after"]
    components = {component["name"]: component for component in unchanged["components"]}
    assert set(components) >= {"prompt:ask", "llm.model", "params", "matrix", "output", "variables"}
    assert {component["status"] for component in components.values()} == {"same"}
    (read,) = unchanged["inputs"]
    assert (read["name"], read["status"], read["after"]["columns"]) == ("clean_notes", "same", ["id", "text", "topic"])

    built.edit("prompts/ask.md", "Write one question", "Write a question")
    built.edit("models/models.yml", "temperature: 0.7", "temperature: 0.8")
    built.write(
        "project/sources/notes.jsonl",
        built.read("project/sources/notes.jsonl") + '{"id": "n", "topic": "Tides", "text": "The moon."}\n',
    )
    llm_server.clear()
    _, changed = bqbuild("plan", "clean_notes", "questions", "--why", "--json").json()["nodes"]
    assert changed["key"]["before"] == unchanged["key"]["after"] != changed["key"]["after"]
    now = {component["name"]: component for component in changed["components"]}
    assert {name for name, component in now.items() if component["status"] == "changed"} == {"prompt:ask", "params"}
    assert now["prompt:ask"]["before"] == components["prompt:ask"]["after"] != now["prompt:ask"]["after"]
    (words,) = now["prompt:ask"]["changes"]
    assert (words["file"], words["line"]) == ("prompts/ask.md", 6)
    assert "-Write one question for {{ grade }} students on {{ topic }}. Answer in JSON." in words["difference"]
    assert now["params"]["changes"][0]["difference"] == ["-0.7", "+0.8"]
    assert changed["inputs"][0]["rows"] == "`clean_notes`: 1 row added"
    text = bqbuild("plan", "questions", "--why").out
    assert "questions (synthesize): build\n" in text
    assert "+Write a question for {{ grade }}" in text
    assert not llm_server.requests


def test_why_of_a_model_that_waits_says_what_is_not_known(bqbuild: Bqbuild, built: Space) -> None:
    built.edit("prompts/ask.md", "Write one question", "Write a question")
    waiting = next(node for node in bqbuild("plan", "--why", "--json").json()["nodes"] if node["name"] == "answers")
    assert waiting["action"] == "maybe"
    assert waiting["key"]["after"] is None
    assert waiting["inputs"][0]["status"] == "unknown"
    assert "not known before its inputs are built" in bqbuild("plan", "--why").out


def test_markdown_is_not_made_markup_by_values(bqbuild: Bqbuild, built: Space) -> None:
    built.edit("models/models.yml", "max_tokens: 200}", "max_tokens: 200, stop: ['<img src=x>|', '[a](//b)', '@you']}")
    (line,) = [line for line in bqbuild("plan", "--markdown").out.splitlines() if line.startswith("| `questions`")]
    assert "<img" not in line
    assert "[a]" not in line
    assert "@you" not in line
    assert len(line.replace("\\|", "").split("|")) == 10


def test_a_mistake_that_planning_finds_is_one_of_the_project(bqbuild: Bqbuild, capitals: Space) -> None:
    capitals.write("models/loud.yml", "models: [{name: loud, kind: python, from: kept, function: nowhere}]\n")
    done = bqbuild("plan")
    assert done.code == 2
    assert "models/loud.yml:1" in done.err


def test_what_is_read_as_it_was_built_is_a_warning(bqbuild: Bqbuild, built: Space) -> None:
    built.edit("models/staging/clean_notes.sql", "id, topic", "id, upper(topic) as topic")
    assert "select `clean_notes` too" in bqbuild("plan", "questions").err
    assert "warning" not in bqbuild("plan").err
