"""SPEC Appendix A, to the letter: its files as they stand, its commands, and the names in what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.llm_server import LlmServer
from tests.space import Space

MODELS = ["clean_notes", "questions", "answers", "labelled", "kept"]


class Shell:
    """The command line as a user has it: a process in the project's folder."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.environment = {**os.environ, "LLM_URL": space.server.url, "LLM_API_KEY": "sk-very-secret-0001"}

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "bqbuild.cli.main", *arguments],
            cwd=self.space.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        self.errors = done.stderr
        return done.stdout

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, code=code))


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with LlmServer() as server:
        shell = Shell(Space.copy("capitals", tmp_path_factory.mktemp("appendix") / "capitals", server))
        shell("run")
        yield shell


def test_the_run_asks_24_times_and_keeps_8_rows(shell: Shell) -> None:
    assert len(shell.space.server.requests) == 24
    assert shell.space.rows("select count(*) as n from kept") == [{"n": 8}]


def test_requests_are_what_the_prompt_says(shell: Shell) -> None:
    body = next(body for body in shell.space.server.requests if "Brazil" in str(body) and "primary" in str(body))
    assert body["model"] == "mock"
    assert body["temperature"] == 0.7
    assert body["max_tokens"] == 200
    assert body["messages"] == [
        {"role": "system", "content": "You write exam questions."},
        {
            "role": "user",
            "content": "Write one question for primary students on Brazil. Answer in JSON.\n"
            "Brasília replaced Rio de Janeiro as capital in 1960.",
        },
    ]
    assert "response_format" not in body


def test_ls_prints_one_name_a_line_and_one_object_a_line(shell: Shell) -> None:
    names = shell("ls").split()
    assert set(MODELS) <= set(names)
    objects = {entry["name"]: entry for entry in map(json.loads, shell("ls", "--output", "json").splitlines())}
    assert set(objects["clean_notes"]) == {"name", "kind", "path", "tags", "depends_on"}
    assert objects["clean_notes"]["tags"] == ["staging"]
    assert objects["clean_notes"]["path"] == "models/staging/clean_notes.sql"
    assert objects["clean_notes"]["depends_on"] == ["notes"]
    assert objects["kept"]["kind"] == "filter"


def test_run_results_have_the_names_of_the_specification(shell: Shell) -> None:
    shell("run")
    document = json.loads((shell.space.root / ".bqbuild/dev/run_results.json").read_text())
    assert {"metadata", "results", "totals"} <= set(document)
    assert [result["name"] for result in document["results"]] == MODELS
    wanted = {"name", "kind", "status", "reason", "rows", "calls", "tokens", "cost", "seconds", "table"}
    for result in document["results"]:
        assert wanted <= set(result)
        assert set(result["calls"]) == {"new", "cached", "failed"}
        assert set(result["tokens"]) == {"input", "output"}
        assert result["status"] == "cached"


def test_a_run_with_nothing_to_do_says_so_in_one_line(shell: Shell) -> None:
    shell("run")
    lines = [line for line in shell.errors.splitlines() if line.strip()]
    assert len(lines) == 1
    assert "othing to do" in lines[0]


def test_plan_json_has_the_names_of_the_specification(shell: Shell) -> None:
    document = shell.json("plan", "--json")
    assert {"nodes", "totals"} <= set(document)
    wanted = {"name", "kind", "action", "reasons", "rows", "calls", "tokens", "cost"}
    for node in document["nodes"]:
        assert wanted <= set(node)
        assert node["action"] == "cached"
        assert node["calls"] == {"new": 0, "cached": 0}
        assert all({"code", "message", "file", "line"} <= set(reason) for reason in node["reasons"])


def test_plan_says_what_a_changed_prompt_costs_before_it_is_run(shell: Shell) -> None:
    sent = len(shell.space.server.requests)
    shell.space.edit("prompts/improve.md", "Improve this", "Polish this")
    try:
        nodes = {node["name"]: node for node in shell.json("plan", "--json")["nodes"]}
    finally:
        shell.space.edit("prompts/improve.md", "Polish this", "Improve this")
    assert {name: node["action"] for name, node in nodes.items()} == {
        "clean_notes": "cached",
        "questions": "cached",
        "answers": "build",
        "labelled": "maybe",
        "kept": "maybe",
    }
    assert nodes["answers"]["calls"]["new"] == 8
    assert nodes["answers"]["reasons"][0]["file"] == "prompts/improve.md"
    assert nodes["labelled"]["calls"]["new"] == {"at_most": 8}
    assert len(shell.space.server.requests) == sent


def test_show_prints_rows_as_a_table_json_and_csv(shell: Shell) -> None:
    rows = shell.json("show", "kept", "--limit", "3", "--output", "json")
    assert len(rows) == 3
    assert list(rows[0])[-3:] == ["_bq_id", "_bq_parent", "_bq_calls"]
    header, first = shell("show", "kept", "--limit", "1", "--output", "csv").splitlines()[:2]
    assert header.startswith("id,topic,text,grade,question,answer")
    assert first
    assert "question" in shell("show", "kept", "--limit", "5", "--output", "table")
    assert shell.json("show", "--inline", "select count(*) as n from questions", "--output", "json") == [{"n": 8}]


def test_trace_goes_back_to_the_file_and_line(shell: Shell) -> None:
    row = shell.space.rows("select * from kept where topic = 'Japan' and grade = 'primary'")[0]
    story = shell.json("trace", row["_bq_id"], "--json")
    assert {"record", "steps", "source"} <= set(story)
    assert [step["model"] for step in story["steps"]] == ["kept", "labelled", "answers", "questions", "clean_notes"]
    for step in story["steps"]:
        assert {"model", "kind", "row", "prompt", "messages", "response", "llm", "cost"} <= set(step)
    asked = story["steps"][3]
    assert asked["prompt"] == "ask"
    assert asked["messages"][0] == {"role": "system", "content": "You write exam questions."}
    assert row["question"] in asked["response"]
    assert story["source"]["name"] == "notes"
    assert story["source"]["file"].endswith("sources/notes.jsonl")
    assert story["source"]["line"] == 2
    assert story["source"]["row"]["id"] == "jp"


def test_the_named_selector_and_the_methods_select(shell: Shell) -> None:
    assert shell("ls", "--select", "selector:questions").split() == ["questions", "answers", "labelled", "kept"]
    assert shell("ls", "--select", "tag:staging").split() == ["clean_notes"]
    assert shell("ls", "--select", "path:models/staging").split() == ["clean_notes"]
    assert shell("ls", "--select", "kind:refine+", "--exclude", "kept").split() == ["answers", "labelled"]
    assert shell("ls", "--select", "+questions", "--exclude", "source:*").split() == ["clean_notes", "questions"]


def test_the_warehouse_has_every_model_as_a_view(shell: Shell) -> None:
    import duckdb

    with duckdb.connect(str(shell.space.root / ".bqbuild/dev/warehouse.duckdb"), read_only=True) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (8,)
        assert connection.execute("select count(*) from dev.questions").fetchone() == (8,)


def test_compile_lineage_parse_and_test_work(shell: Shell) -> None:
    shell("parse")
    assert "select" in shell("compile", "--select", "clean_notes").lower()
    assert "You write exam questions." in shell("compile", "--select", "questions")
    assert "clean_notes" in shell("lineage", "kept")
    shell("test")
    shell("build")


def test_the_secret_is_in_no_file_that_was_written(shell: Shell) -> None:
    for path in (shell.space.root / ".bqbuild").rglob("*"):
        if path.is_file():
            assert b"sk-very-secret-0001" not in path.read_bytes(), path


def test_a_mistake_names_the_file_the_line_and_the_nearest_name(tmp_path: Path, llm_server: LlmServer) -> None:
    broken = Shell(Space.copy("capitals", tmp_path / "broken", llm_server))
    broken.space.edit("models/models.yml", "    prompt: improve", "    promt: improve")
    broken.space.edit("prompts/ask.md", "{{ topic }}", "{{ topik }}")
    broken("parse", code=2)
    assert "models/models.yml:18:5: unknown key 'promt' (did you mean 'prompt'?)" in broken.errors.replace("`", "'")
    broken.space.edit("models/models.yml", "    promt: improve", "    prompt: improve")
    broken("run", code=2)
    assert "prompts/ask.md:6" in broken.errors
    assert "topic" in broken.errors
    assert "Traceback" not in broken.errors
