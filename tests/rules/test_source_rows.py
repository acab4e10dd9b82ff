"""SPEC §4, row identity and types of sources, as far as calls and tables show it: keyless, equal and odd rows."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Bqbuild
from tests.space import Space, statuses

NOTES = "project/sources/notes.jsonl"
MODELS = "models/models.yml"
ABOVE = ("clean_notes", "questions")


@pytest.fixture
def keyless(capitals: Space, monkeypatch: pytest.MonkeyPatch) -> Space:
    """The project `capitals` without a key, one note there twice, as the working directory."""
    capitals.edit(MODELS, "    key: [id]", "    #KEY")
    capitals.write(NOTES, capitals.read(NOTES) + capitals.read(NOTES).splitlines(keepends=True)[0])
    monkeypatch.chdir(capitals.root)
    monkeypatch.setenv("LLM_URL", capitals.server.url)
    return capitals


def test_equal_rows_are_rows_of_their_own_and_are_asked_for_once(keyless: Space) -> None:
    assert keyless.run(*ABOVE)["questions"].counts.rows == 10
    assert keyless.sent == 8
    assert keyless.rows("select count(distinct _bq_id) as n from questions") == [{"n": 10}]


def test_one_more_equal_row_and_one_less_cost_nothing_and_rename_nobody(keyless: Space) -> None:
    keyless.run(*ABOVE)
    before = {row["_bq_id"] for row in keyless.rows("select _bq_id from questions")}
    text = keyless.read(NOTES)
    keyless.write(NOTES, text.splitlines(keepends=True)[0] + text)
    assert keyless.run(*ABOVE)["questions"].counts.rows == 12
    assert keyless.sent == 0
    assert before < {row["_bq_id"] for row in keyless.rows("select _bq_id from questions")}
    keyless.write(NOTES, text)
    assert keyless.run(*ABOVE)["questions"].counts.rows == 10
    assert keyless.sent == 0
    assert {row["_bq_id"] for row in keyless.rows("select _bq_id from questions")} == before


def test_a_duplicate_key_names_the_file_and_both_lines(keyless: Space, bqbuild: Bqbuild) -> None:
    keyless.edit(MODELS, "    #KEY", "    key: [id]")
    done = bqbuild("run")
    assert done.code == 1
    assert "sources/notes.jsonl:6: the key of source `notes` comes twice" in done.err
    assert "sources/notes.jsonl:1" in done.err
    assert keyless.server.requests == []


def test_an_odd_row_retypes_nothing_and_the_way_out_is_named(keyless: Space, bqbuild: Bqbuild) -> None:
    rows = [json.loads(line) | {"year": 2000 + n} for n, line in enumerate(keyless.read(NOTES).splitlines())]
    keyless.write(NOTES, "".join(json.dumps(row) + "\n" for row in rows))
    assert statuses(keyless.run(*ABOVE))["questions"] == "success"
    keyless.write(NOTES, keyless.read(NOTES) + json.dumps(rows[0] | {"year": "about 2000"}) + "\n")
    done = bqbuild("run")
    assert done.code == 1
    assert "sources/notes.jsonl:7: column `year` is bigint" in done.err
    assert "bqbuild parse --update-sources" in done.err
    assert bqbuild("parse", "--update-sources").code == 0
    keyless.run(*ABOVE)
    assert keyless.sent == 0, "what a prompt does not read is not asked for again"


def test_parse_and_ls_read_the_lock_and_never_the_data(keyless: Space, bqbuild: Bqbuild) -> None:
    keyless.run("clean_notes")
    (keyless.root / NOTES).unlink()
    assert bqbuild("parse").code == 0
    assert "questions" in bqbuild("ls").out
