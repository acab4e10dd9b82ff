"""`--sample N` takes the N roots of lowest hash of each source, and publishes beside the environment."""

from __future__ import annotations

import json
import os

import duckdb
import pytest

from bqbuild.run.command import run_models
from bqbuild.run.options import RunOptions
from tests.cli.conftest import Bqbuild
from tests.space import Space, statuses

NOTES = "project/sources/notes.jsonl"
MODELS = "models/models.yml"


@pytest.fixture
def many(capitals: Space) -> Space:
    """The project `capitals` with 60 notes and one grade."""
    rows = [{"id": str(n), "topic": f"Place {n:03}", "text": f"Text number {n:03}."} for n in range(60)]
    capitals.write(NOTES, "".join(json.dumps(row) + "\n" for row in rows))
    capitals.edit(MODELS, "[primary, undergraduate]", "[primary]")
    return capitals


def ids(space: Space, size: int) -> set[str]:
    space.run("clean_notes", sample=size)
    return {row["id"] for row in space.rows("select id from clean_notes", sample=0)}


def test_a_sample_has_as_many_rows_and_is_part_of_a_larger_one(many: Space) -> None:
    small, large = ids(many, 20), ids(many, 50)
    assert (len(small), len(large)) == (20, 50)
    assert small < large
    assert ids(many, 20) == small
    assert len(ids(many, 1000)) == 60


def test_a_sample_does_not_depend_on_the_order_of_rows(many: Space) -> None:
    before = ids(many, 20)
    many.write(NOTES, "".join(reversed(many.read(NOTES).splitlines(keepends=True))))
    assert ids(many, 20) == before


def test_a_sample_is_published_beside_the_environment_and_its_calls_are_not_bought_again(many: Space) -> None:
    results = many.run(sample=20)
    assert set(statuses(results).values()) == {"success"}
    assert many.sent == 60
    assert many.digests() == {}, "the environment itself is as it was"
    assert many.rows("select count(*) as n from kept", sample=0) == [{"n": 20}]
    many.run()
    assert many.sent == 120, "40 rows more, three calls each"
    assert many.rows("select count(*) as n from kept") == [{"n": 60}]
    assert set(statuses(many.run(sample=20)).values()) == {"cached"}
    assert set(statuses(many.run()).values()) == {"cached"}
    assert many.sent == 0


def test_a_larger_sample_pays_for_its_own_rows(many: Space) -> None:
    many.run(sample=20)
    many.run(sample=50)
    assert many.sent == 90
    many.run(sample=20)
    assert many.sent == 0


def test_a_source_that_is_taken_whole_stays_whole(many: Space) -> None:
    many.edit(MODELS, "    format: jsonl", "    sample: all\n    format: jsonl")
    many.write("project/sources/more.csv", "id,topic\n" + "".join(f"{n},t{n}\n" for n in range(30)))
    many.write("models/more.yml", "sources: [{name: more, path: sources/more.csv, key: id}]\n")
    many.write("models/counted.sql", "select count(*) as n from {{ source('more') }}")
    many.run("clean_notes", "counted", sample=5)
    assert many.rows("select count(*) as n from clean_notes", sample=0) == [{"n": 60}]
    assert many.rows("select n from counted", sample=0) == [{"n": 5}]


def test_rows_without_a_key_are_sampled_too(many: Space) -> None:
    many.edit(MODELS, "    key: [id]", "    #")
    many.write(NOTES, many.read(NOTES) + many.read(NOTES).splitlines(keepends=True)[0] * 3)
    assert many.run("clean_notes", sample=10)["clean_notes"].counts.rows == 10


def test_a_duplicate_key_is_an_error_in_a_sample_too(many: Space) -> None:
    many.write(NOTES, many.read(NOTES) + many.read(NOTES).splitlines(keepends=True)[0])
    assert statuses(many.run("clean_notes", sample=1)) == {"clean_notes": "skipped"}


def test_the_lock_is_of_all_rows(many: Space) -> None:
    many.write(NOTES, many.read(NOTES) + '{"id": "x", "topic": "X", "text": "Odd one.", "extra": 1}\n')
    many.run("clean_notes", sample=1)
    assert "extra: bigint" in many.read("project/sources.lock")


def test_the_plan_of_a_sample_is_what_it_then_pays(many: Space) -> None:
    step = next(step for step in many.plan(sample=20).steps if step.name == "questions")
    assert step.new_calls.json() == 20
    many.run(sample=20)
    assert many.plan(sample=20).is_empty
    step = next(step for step in many.plan().steps if step.name == "questions")
    assert (step.new_calls.json(), step.cached_calls.json()) == (40, 20)


def test_the_warehouse_has_the_sample_in_a_schema_of_its_own(many: Space) -> None:
    many.run("clean_notes")
    with many.session(sample=7) as session:
        run_models(session, session.models(), RunOptions(), [], command="run")
    with duckdb.connect(str(many.root / ".bqbuild/dev/warehouse.duckdb"), read_only=True) as warehouse:
        assert warehouse.sql("select count(*) from dev__sample.kept").fetchall() == [(7,)]
        assert warehouse.sql("select count(*) from clean_notes").fetchall() == [(60,)]
        assert warehouse.sql("select count(*) from information_schema.tables where table_name = 'kept'").fetchall() == [
            (1,)
        ]


def test_the_commands_run_and_look_at_a_sample(many: Space, bqbuild: Bqbuild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(many.root)
    monkeypatch.setitem(os.environ, "LLM_URL", many.server.url)
    assert bqbuild("build", "--sample", "3", "-q").code == 0
    rows = bqbuild("show", "kept", "--sample", "--limit", "-1", "--json").json()
    assert len(rows) == 3
    assert "is not built in `capitals/dev`" in bqbuild("show", "kept").err
    assert bqbuild("show", "--inline", "select count(*) as n from {{ ref('kept') }}", "--sample", "--json").json() == [
        {"n": 3}
    ]
    assert bqbuild("trace", rows[0]["_bq_id"], "--sample", "--json").json()["source"]["line"]
    assert bqbuild("plan", "--sample", "3", "--exit-code").code == 0
    results = json.loads((many.root / ".bqbuild/dev/run_results.json").read_text())
    assert results["metadata"]["environment"] == "capitals/dev__sample"


@pytest.mark.parametrize("size", ["0", "-3", "many"])
def test_a_sample_of_nothing_is_a_usage_error(capitals: Space, bqbuild: Bqbuild, size: str) -> None:
    for command in ("run", "build", "plan"):
        assert bqbuild(command, "--sample", size).code == 2
