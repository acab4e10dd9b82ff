from __future__ import annotations

import pytest

from tests.cli.conftest import Bqbuild
from tests.space import Space

NOTES = "project/sources/notes.jsonl"
CLEAN = "models/staging/clean_notes.sql"
NOTE = '{"id": "99", "topic": "Tide", "text": "The moon pulls the sea."}\n'


@pytest.fixture
def shared(capitals: Space, bqbuild: Bqbuild) -> Space:
    """Two targets on one store, `dev` and `prod`, both built."""
    profiles = capitals.read("project/profiles.yml")
    dev = profiles[profiles.index("  dev:") :]
    prod = dev.replace("  dev:", "  prod:").replace("    engine", "    environment: production\n    engine", 1)
    capitals.write("project/profiles.yml", profiles + prod)
    assert bqbuild("run", "-q").code == 0
    sent = len(capitals.server.requests)
    assert bqbuild("run", "-q", "-t", "prod").code == 0
    assert len(capitals.server.requests) == sent  # the store is shared: nothing is bought twice
    return capitals


def models(document: dict[str, object]) -> dict[str, dict[str, object]]:
    found = document["models"]
    assert isinstance(found, list)
    return {model["name"]: model for model in found}


def test_environments_with_the_same_tables_do_not_differ(bqbuild: Bqbuild, shared: Space) -> None:
    done = bqbuild("diff", "dev", "production", "--exit-code")
    assert done.code == 0
    assert done.out.splitlines()[0].startswith("capitals/dev@0 (run, 20")
    assert done.out.splitlines()[-1] == "10 tables are the same, 0 differ"


def test_rows_added_removed_and_changed_are_told_per_model(bqbuild: Bqbuild, shared: Space) -> None:
    shared.edit(NOTES, '"topic": "France"', '"topic": "La \\u001b[31mFrance"')
    kept = [line for line in shared.read(NOTES).splitlines() if '"jp"' not in line]
    shared.write(NOTES, "\n".join(kept) + "\n" + NOTE)
    assert bqbuild("run", "-q", "--select", "clean_notes").code == 0
    found = models(bqbuild("diff", "production", "dev", "--json").json())
    clean = found["clean_notes"]
    assert clean["status"] == "changed"
    assert clean["rows"] == {"before": 4, "after": 4}
    assert (clean["added"], clean["removed"], clean["changed"]) == (1, 1, 1)
    assert clean["columns"] == {"topic": 1}
    assert clean["matched_by"] == "id"
    samples = clean["samples"]
    assert isinstance(samples, dict)
    assert [row["id"] for row in samples["added"]] == ["99"]
    assert [row["id"] for row in samples["removed"]] == ["jp"]
    assert [(pair["before"]["topic"], pair["after"]["topic"]) for pair in samples["changed"]] == [
        ("France", "La \x1b[31mFrance")
    ]
    assert {model["status"] for name, model in found.items() if name != "clean_notes"} == {"same"}
    text = bqbuild("diff", "production", "dev").out
    assert "4 → 4 rows · 1 added · 1 removed · 1 changed (topic 1)" in text
    assert "      - France\n      + La \\u001b[31mFrance\n" in text
    assert "\x1b" not in text
    back = models(bqbuild("diff", "dev", "production", "--json", "--limit", "0").json())["clean_notes"]
    assert (back["added"], back["removed"], back["changed"]) == (1, 1, 1)
    assert back["samples"] == {"added": [], "removed": [], "changed": []}


def test_runs_back_count_only_those_that_changed_something(bqbuild: Bqbuild, built: Space) -> None:
    bqbuild("run", "-q")
    built.edit("prompts/ask.md", "Write one", "Write a")
    bqbuild("run", "-q")
    bqbuild("run", "-q")
    document = bqbuild("diff", "@1", "@0", "--json").json()
    assert document["totals"] == {"same": 6, "changed": 4, "added": 0, "removed": 0, "gone": 0}
    assert (document["before"]["environment"], document["before"]["back"]) == ("capitals/dev", 1)
    assert models(document)["questions"]["columns"] == {"question": 8, "answer": 8}
    assert bqbuild("diff", "dev@1", "dev", "--json").json()["models"] == document["models"]
    assert bqbuild("diff", "@1", "@0", "--exit-code").code == 1
    assert bqbuild("diff", "@1", "@0", "--exit-code", "--select", "clean_notes").code == 0
    done = bqbuild("diff", "@2", "@0")
    assert done.code == 2
    assert "2 runs of `capitals/dev` are recorded" in done.err


def test_columns_that_came_went_or_changed_their_type_are_told(bqbuild: Bqbuild, built: Space) -> None:
    built.edit(CLEAN, "id, topic, text", "id, length(topic) as topic, text, 1 as one")
    bqbuild("run", "-q", "--select", "clean_notes")
    (clean,) = bqbuild("diff", "@1", "@0", "--json", "--select", "clean_notes").json()["models"]
    assert clean["schema"] == {
        "added": {"one": "integer"},
        "removed": {},
        "retyped": {"topic": {"before": "varchar", "after": "bigint"}},
    }
    assert clean["columns"] == {"topic": 4}
    assert "column topic was varchar, is bigint" in bqbuild("diff", "@1", "@0", "--select", "clean_notes").out


def test_models_on_one_side_alone_and_sources_are_told(bqbuild: Bqbuild, built: Space) -> None:
    built.write("models/topics.sql", "select topic, count(*) as n from {{ ref('clean_notes') }} group by topic")
    built.write(NOTES, built.read(NOTES) + NOTE)
    bqbuild("run", "-q", "--select", "topics", "clean_notes")
    found = models(bqbuild("diff", "@1", "@0", "--json").json())
    assert (found["topics"]["status"], found["topics"]["added"]) == ("added", 5)
    assert "notes" not in found
    assert models(bqbuild("diff", "@0", "@1", "--json").json())["topics"]["status"] == "removed"
    assert models(bqbuild("diff", "@1", "@0", "--json", "-s", "source:notes").json())["notes"]["added"] == 1


def test_an_environment_that_is_not_there_is_an_error_with_the_nearest(bqbuild: Bqbuild, shared: Space) -> None:
    done = bqbuild("diff", "dev", "prodction")
    assert done.code == 2
    assert "there is no environment `prodction`" in done.err
    assert "did you mean 'production'?" in done.err


def test_long_values_are_cut_where_they_differ(bqbuild: Bqbuild, built: Space) -> None:
    built.edit(CLEAN, "id, topic, text", "id, topic, repeat('same ', 40) || text as text")
    bqbuild("run", "-q", "--select", "clean_notes")
    built.edit(CLEAN, "|| text as", "|| upper(text) as")
    bqbuild("run", "-q", "--select", "clean_notes")
    shown = bqbuild("diff", "@1", "@0", "--select", "clean_notes", "--limit", "4").out
    lines = [line for line in shown.splitlines() if " same " in line]
    assert len(lines) == 8
    assert any("same Tokyo has been" in line for line in lines)
    assert any("same TOKYO HAS BEEN" in line for line in lines)
    assert all(len(line) <= 80 for line in lines)
