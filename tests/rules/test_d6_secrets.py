"""D6: a secret is in nothing that is written or printed, whatever a server says back."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import duckdb
import pyarrow.parquet as pq
import pytest

from bqbuild.core.errors import ProjectErrors
from bqbuild.store.journal import decode_line
from bqbuild.store.segments import Segment
from tests.cli.conftest import Bqbuild, Done
from tests.llm_server import Body, Fault, default_answer
from tests.space import Space

KEY = "sk-live/5f3a+9c1e=77aa?x%y"
TEAM = "team-token-123456"
PROFILES = "project/profiles.yml"

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda sent: sent,
    "URL-encoded": lambda sent: quote(sent, safe=""),
    "URL-encoded in lower case": lambda sent: "".join(
        letter if letter.isalnum() or letter == "-" else f"%{ord(letter):02x}" for letter in sent
    ),
    "base64": lambda sent: base64.b64encode(sent.encode()).decode(),
    "base64 for URLs, shifted": lambda sent: base64.urlsafe_b64encode(f"x{sent}".encode()).decode(),
    "base64, shifted again": lambda sent: base64.b64encode(f"xy{sent}".encode()).decode(),
    "hexadecimal": lambda sent: sent.encode().hex(),
    "JSON in JSON": lambda sent: json.dumps(json.dumps({"Authorization": sent})),
}


@pytest.fixture
def space(capitals: Space, monkeypatch: pytest.MonkeyPatch) -> Space:
    """The project `capitals` with secrets in its profile, as the working directory."""
    capitals.edit(PROFILES, "retries: 6", "retries: 0\n        headers: {X-Team: \"{{ secret_env_var('TEAM') }}\"}")
    monkeypatch.chdir(capitals.root)
    monkeypatch.setenv("LLM_URL", capitals.server.url)
    monkeypatch.setenv("LLM_API_KEY", KEY)
    monkeypatch.setenv("TEAM", TEAM)
    return capitals


def everything(space: Space, *said: Done) -> Iterator[tuple[str, bytes]]:
    """All that was printed and every file, as bytes, and once more unpacked where it is compressed."""
    for done in said:
        yield "stdout", done.out.encode()
        yield "stderr", done.err.encode()
    for path in space.root.rglob("*"):
        if not path.is_file():
            continue
        yield str(path), path.read_bytes()
        if path.suffix == ".parquet":
            yield f"{path}, read", str(pq.read_table(path).to_pylist()).encode()
        if path.name.endswith(".jsonl.zst"):
            segment = Segment(path)
            yield f"{path}, read", b"".join(str(decode_line(line)).encode() + line for line in segment.sound_lines())
            segment.close()
        if path.name == "warehouse.duckdb":
            yield f"{path}, read", _views(path)


def _views(path: Path) -> bytes:
    with duckdb.connect(str(path), read_only=True) as warehouse:
        names = warehouse.sql("select table_schema, table_name from information_schema.tables").fetchall()
        return "".join(str(warehouse.sql(f'select * from "{a}"."{b}"').fetchall()) for a, b in names).encode()


def assert_hidden(space: Space, *said: Done) -> None:
    """No form of a secret is anywhere. Of base64 the middle is looked for: it does not depend on what stands around."""
    forbidden = {form(secret) for secret in (KEY, TEAM) for form in FORMS.values()}
    forbidden |= {
        base64.b64encode(b"x" * shift + secret.encode())[4:-4].decode() for secret in (KEY, TEAM) for shift in range(3)
    }
    found = {
        (place, secret) for place, data in everything(space, *said) for secret in forbidden if secret.encode() in data
    }
    assert not found


def sent(space: Space) -> str:
    """The credentials of the request that is being answered."""
    headers = space.server.headers[-1]
    return f"{headers['Authorization']} {headers['X-Team']}"


@pytest.mark.parametrize(
    ("form", "status"), [(form, 400) for form in FORMS] + [("as it is", 401), ("as it is", 429), ("as it is", 500)]
)
def test_d6_errors_that_echo_the_key_are_shown_and_kept_without_it(
    space: Space, bqbuild: Bqbuild, form: str, status: int
) -> None:
    def echo(body: Body, number: int) -> Fault | None:
        if "Japan" not in str(body):
            return None
        text = FORMS[form](sent(space))
        return Fault(status=status, body=json.dumps({"error": {"message": f"bad request with {text}"}}).encode())

    space.server.fault = echo
    said = [bqbuild("run", "--json"), bqbuild("plan", "--json"), bqbuild("run", "--debug")]
    assert said[0].code == 1
    assert any(headers["Authorization"] == f"Bearer {KEY}" for headers in space.server.headers), "it was really sent"
    assert_hidden(space, *said)


@pytest.mark.parametrize(
    "body", [b"<html>%s</html>", b'{"error": "%s"}', b'{"choices": [], "error": {"message": "%s"}}', b"%s"]
)
def test_d6_a_200_that_is_no_reply_is_shown_without_the_key(space: Space, bqbuild: Bqbuild, body: bytes) -> None:
    space.server.fault = lambda request, number: (
        Fault(body=body % sent(space).encode()) if "Japan" in str(request) else None
    )
    done = bqbuild("run", "--json")
    assert done.code == 1
    assert_hidden(space, done)


def test_d6_the_reply_of_a_good_answer_is_kept_without_the_key(space: Space, bqbuild: Bqbuild) -> None:
    space.server.answer = lambda body: (
        json.dumps({"question": f"Is it {sent(space)}?", "answer": FORMS["base64"](sent(space))})
        if "Answer in JSON" in str(body)
        else default_answer(body)
    )
    space.server.fault = lambda body, number: Fault(
        edit=lambda reply: reply | {"model": f"mock {sent(space)}", "system_fingerprint": sent(space)}
    )
    done = bqbuild("build", "--json")
    assert done.code == 0, done.err
    assert "***" in space.rows("select question from questions limit 1")[0]["question"]
    row = space.rows("select _bq_id from kept limit 1")[0]
    assert_hidden(space, done, bqbuild("trace", row["_bq_id"], "--full"), bqbuild("show", "kept", "--json"))


def test_d6_unusable_answers_are_kept_without_the_key(space: Space, bqbuild: Bqbuild) -> None:
    space.server.answer = lambda body: f"You are {sent(space)}" if "Brazil" in str(body) else default_answer(body)
    said = [bqbuild("run", "--json"), bqbuild("retry", "--json")]
    assert space.rows("select * from questions__errors")
    assert_hidden(space, *said)


def test_d6_imported_replies_are_kept_without_the_key(space: Space, bqbuild: Bqbuild, tmp_path: Path) -> None:
    pair = {"request": {"messages": [{"role": "user", "content": "Hello"}]}, "response": f"You are {KEY}"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    done = bqbuild("import-calls", str(tmp_path / "pairs.jsonl"), "--llm", "writer", "--json")
    assert done.json()["imported"] == 1
    assert_hidden(space, done)


def test_d6_looking_at_a_project_shows_no_secret(space: Space, bqbuild: Bqbuild) -> None:
    commands = ("parse --json", "ls --output json", "debug", "compile", "lineage --json", "run --json")
    assert_hidden(space, *(bqbuild(*command.split()) for command in commands))
    assert "LLM_API_KEY" in os.environ


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model: mock", "model: \"{{ env_var('LLM_API_KEY') }}\""),
        ("model: mock", "model: mock\n        params: {user: \"me {{ env_var('LLM_API_KEY') }}\"}"),
        ("    store: .bqbuild", "    vars: {who: \"{{ env_var('LLM_API_KEY') }}\"}\n    store: .bqbuild"),
        ("    store: .bqbuild", "    environment: \"{{ secret_env_var('TEAM') }}\"\n    store: .bqbuild"),
    ],
    ids=["model", "params", "vars", "environment"],
)
def test_d6_a_secret_where_it_would_be_recorded_is_an_error(space: Space, old: str, new: str) -> None:
    space.edit(PROFILES, old, new)
    with pytest.raises(ProjectErrors, match="a secret has no place") as caught, space.session():
        pass
    assert KEY not in str(caught.value)
    assert TEAM not in str(caught.value)
