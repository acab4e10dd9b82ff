"""`bqbuild import-calls`: what was paid for elsewhere is not paid for again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Bqbuild
from tests.llm_server import Body, LlmServer, default_answer
from tests.space import Space

MODELS = "models/models.yml"


def completion(body: Body, *texts: str) -> dict[str, Any]:
    """The chat completion that a server would have sent."""
    return {
        "model": f"{body['model']}-2026-01-01",
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} for text in texts],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }


def write(path: Path, lines: Sequence[Any]) -> str:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


@pytest.fixture
def asked(bqbuild: Bqbuild, capitals: Space) -> list[Body]:
    """The 8 requests of `questions`, as a server received them; the store that has them is gone."""
    assert bqbuild("run", "-q", "--select", "+questions").code == 0
    bodies = list(capitals.server.requests)
    (capitals.root / ".bqbuild").rename(capitals.root.parent / "elsewhere")
    capitals.server.clear()
    assert len(bodies) == 8
    return bodies


def run_questions(bqbuild: Bqbuild, server: LlmServer) -> int:
    """Requests that building `questions` sends."""
    server.clear()
    assert bqbuild("run", "-q", "--select", "+questions").code == 0
    return len(server.requests)


@pytest.mark.parametrize("form", ["completion", "text"])
def test_pairs_are_found_by_a_run(
    bqbuild: Bqbuild, asked: list[Body], llm_server: LlmServer, tmp_path: Path, form: str
) -> None:
    answers = [default_answer(body) for body in asked]
    both = list(zip(asked, answers, strict=True))
    responses = [completion(body, text) if form == "completion" else text for body, text in both]
    lines = [{"request": body, "response": reply} for body, reply in zip(asked, responses, strict=True)]
    done = bqbuild("import-calls", write(tmp_path / "pairs.jsonl", lines), "--llm", "writer", "--json")
    assert done.code == 0, done.err
    assert done.json() == {"imported": 8, "replaced": 0, "known": 0, "refused": []}
    assert run_questions(bqbuild, llm_server) == 0
    again = bqbuild("import-calls", str(tmp_path / "pairs.jsonl"), "--llm", "writer")
    assert "0 calls imported, 8 known already, 0 lines refused." in again.err


def test_a_batch_is_joined_by_its_custom_ids(
    bqbuild: Bqbuild, asked: list[Body], llm_server: LlmServer, tmp_path: Path
) -> None:
    given = [
        {"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for n, body in enumerate(asked)
    ]
    came = [
        {"id": "x", "custom_id": f"r{n}", "error": None}
        | {"response": {"status_code": 200, "body": completion(body, default_answer(body))}}
        for n, body in reversed(list(enumerate(asked)))
    ]
    came[0]["response"]["status_code"] = 429
    files = write(tmp_path / "in.jsonl", given), write(tmp_path / "out.jsonl", came[:-1])
    done = bqbuild("import-calls", *files, "--llm", "writer", "--json")
    assert done.code == 1
    assert done.json()["imported"] == 6
    reasons = {(Path(one["file"]).name, one["line"]): one["reason"] for one in done.json()["refused"]}
    assert reasons == {
        ("out.jsonl", 1): "the batch has an error to it (HTTP 429)",
        ("in.jsonl", 1): "there is no response with the custom_id `r0`",
        ("in.jsonl", 8): "there is no response with the custom_id `r7`",
    }
    assert run_questions(bqbuild, llm_server) == 2


def test_chats_have_the_parameters_that_are_given(
    bqbuild: Bqbuild, asked: list[Body], llm_server: LlmServer, tmp_path: Path
) -> None:
    chats = [
        {"messages": [*body["messages"], {"role": "assistant", "content": default_answer(body)}]} for body in asked
    ]
    file = write(tmp_path / "chats.jsonl", chats)
    params = "{temperature: 0.7, max_tokens: 200.0}"
    assert bqbuild("import-calls", file, "--llm", "writer", "--params", params).code == 0
    assert run_questions(bqbuild, llm_server) == 0


def test_form_does_not_matter(bqbuild: Bqbuild, asked: list[Body], llm_server: LlmServer, tmp_path: Path) -> None:
    lines = []
    for body in asked:
        messages = [
            {"role": message["role"], "content": [{"type": "text", "text": message["content"]}]}
            for message in body["messages"]
        ]
        request = {"max_tokens": 200.0, "temperature": 0.70, "stream": True, "n": 1, "top_p": None}
        lines.append({"request": {**request, "messages": messages}, "response": default_answer(body)})
    assert bqbuild("import-calls", write(tmp_path / "pairs.jsonl", lines), "--llm", "writer").code == 0
    assert run_questions(bqbuild, llm_server) == 0


def test_several_replies_to_one_request_are_its_samples(
    bqbuild: Bqbuild, asked: list[Body], capitals: Space, tmp_path: Path
) -> None:
    texts = [[json.dumps({"question": f"Q{n}", "answer": f"A{n}"}) for n in (1, 2, 3)] for _ in asked]
    both = list(zip(asked, texts, strict=True))
    lines: list[Any] = [{"request": {**body, "n": 2}, "response": completion(body, *three[:2])} for body, three in both]
    lines += [{"request": body, "response": three[2]} for body, three in both]
    assert bqbuild("import-calls", write(tmp_path / "pairs.jsonl", lines), "--llm", "writer").code == 0
    capitals.edit(MODELS, "    matrix: {grade", "    samples: 3\n    matrix: {grade")
    assert run_questions(bqbuild, capitals.server) == 0
    found = capitals.rows("select question, count(*) as n from questions group by 1 order by 1")
    assert found == [{"question": f"Q{n}", "n": 8} for n in (1, 2, 3)]


def test_a_schema_that_was_sent_is_found_where_it_is_declared(
    bqbuild: Bqbuild, capitals: Space, tmp_path: Path
) -> None:
    capitals.edit(MODELS, "output: {format: json,", "output: {format: json, constrain: true,")
    assert run_questions(bqbuild, capitals.server) == 8
    lines = [{"request": body, "response": default_answer(body)} for body in capitals.server.requests]
    assert "response_format" in lines[0]["request"]
    (capitals.root / ".bqbuild").rename(capitals.root.parent / "elsewhere")
    assert bqbuild("import-calls", write(tmp_path / "pairs.jsonl", lines), "--llm", "writer").code == 0
    assert run_questions(bqbuild, capitals.server) == 0


BAD = {
    "no JSON": ("{", "it is no JSON"),
    "a list": ([], "it is no JSON object"),
    "nothing known": ({"prompt": "x"}, "it has neither"),
    "another model": ({"request": {"model": "gpt", "messages": []}, "response": "x"}, "it asked `gpt`"),
    "no messages": ({"request": {"model": "mock"}, "response": "x"}, "no `messages`"),
    "no reply": ({"messages": [{"role": "user", "content": "x"}]}, "there is no reply"),
    "a tool": (
        {"request": {"messages": [{"role": "tool", "content": "x"}]}, "response": "x"},
        "the role 'tool'",
    ),
    "an image": (
        {"request": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "response": "x"},
        "parts that are no text",
    ),
    "an error": (
        {"request": {"messages": [{"role": "user", "content": "x"}]}, "response": {"error": "x"}},
        "neither text",
    ),
}


def test_lines_that_cannot_be_taken_are_named_and_the_others_are_taken(
    bqbuild: Bqbuild, asked: list[Body], llm_server: LlmServer, tmp_path: Path
) -> None:
    good = [{"request": body, "response": default_answer(body)} for body in asked]
    file = write(tmp_path / "pairs.jsonl", [*(line for line, _ in BAD.values()), "", *good])
    done = bqbuild("import-calls", file, "--llm", "writer")
    assert done.code == 1
    assert f"8 calls imported, 0 known already, {len(BAD)} lines refused." in done.err
    for number, (_, reason) in enumerate(BAD.values(), 1):
        line = next(line for line in done.err.splitlines() if line.startswith(f"{file}:{number}:"))
        assert reason in line
    assert run_questions(bqbuild, llm_server) == 0


def test_a_recorded_call_is_never_overwritten_but_on_purpose(
    bqbuild: Bqbuild, built: Space, llm_server: LlmServer, tmp_path: Path
) -> None:
    body = next(body for body in llm_server.requests if "Japan" in str(body) and "Write one" in str(body))
    other = json.dumps({"question": "Imported?", "answer": "Yes."})
    file = write(tmp_path / "pairs.jsonl", [{"request": body, "response": other}])
    done = bqbuild("import-calls", file, "--llm", "writer", "--json")
    assert done.json() == {"imported": 0, "replaced": 0, "known": 1, "refused": []}
    assert bqbuild("plan", "--exit-code").code == 0
    done = bqbuild("import-calls", file, "--llm", "writer", "--replace", "--json")
    assert done.json() == {"imported": 0, "replaced": 1, "known": 0, "refused": []}
    steps = {step["name"]: step for step in bqbuild("plan", "--json").json()["nodes"]}
    assert steps["questions"]["reasons"][0]["message"] == "1 of its answers was asked for again"
    llm_server.clear()
    assert bqbuild("run", "-q").code == 0
    assert len(llm_server.requests) == 2, "its answer and its label"
    assert built.rows("select answer from questions where question = 'Imported?'") == [{"answer": "Yes."}]


def test_a_connection_that_is_not_there_is_a_usage_error(bqbuild: Bqbuild, capitals: Space, tmp_path: Path) -> None:
    done = bqbuild("import-calls", write(tmp_path / "pairs.jsonl", []), "--llm", "writter")
    assert done.code == 2
    assert "did you mean 'writer'" in done.err
    assert bqbuild("import-calls", str(tmp_path / "nothing.jsonl"), "--llm", "writer").code == 2


def test_what_was_imported_has_its_tokens_and_its_price(
    bqbuild: Bqbuild, asked: list[Body], capitals: Space, tmp_path: Path
) -> None:
    lines = [{"request": body, "response": completion(body, default_answer(body))} for body in asked]
    assert bqbuild("import-calls", write(tmp_path / "pairs.jsonl", lines), "--llm", "writer").code == 0
    run_questions(bqbuild, capitals.server)
    row = capitals.rows("select _bq_id from questions limit 1")[0]
    step = bqbuild("trace", f"questions:{row['_bq_id']}", "--json").json()["steps"][0]
    assert step["llm"]["model"] == "mock-2026-01-01"
    assert step["cost"] == pytest.approx((10 * 0.5 + 5 * 2.0) / 1e6)
