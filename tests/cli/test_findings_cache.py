"""What is remembered of analyses never differs from what analysing again would give, whatever is edited."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bqbuild.core.findings import Findings
from bqbuild.core.hashing import Digest
from bqbuild.run import outline_cache
from bqbuild.run.local_key import local_key, read_signed, write_signed
from bqbuild.run.outline_cache import FINDINGS, FOLDER, OFF, open_and_remember
from tests.cli.conftest import Bqbuild
from tests.cli.outlines import seen, write_many
from tests.space import Space

FORMS: dict[str, list[str]] = {
    "models/large.sql": [
        "select id, {{ loud('topic') }} as topic from {{ source('notes') }} where size >= {{ var('least') }}",
        "select * from {{ source('notes') }}",
        "-- a word\nselect id, topic, size from {{ source('notes') }}",
        "select id, Topic from {{ source('notes') }}",
        "select id, topic, {{ env_var('LLM_MODEL') | length }} as n from {{ source('notes') }}",
        "select id, topic from {{ source('notes') }} order by random()",
        "{{ config(volatile=true) }}select id, topic, now() as at from {{ source('notes') }}",
        "{{ config(volatile=false) }}select id, topic, now() as at from {{ source('notes') }}",
        "select id, topic from notes",
        "select id, topic frm",
        "select 1 as id, 'x' as topic",
    ],
    "models/more/small.sql": [
        "{{ config(tags=['quick']) }}\nselect id, topic from {{ ref('large') }}\n",
        "select * from {{ ref('large') }}",
        "select * exclude (id), id from {{ ref('large') }}",
        "select a.id, b.topic from {{ ref('large') }} a join {{ source('notes') }} b using (id)",
        "select id, topic from {{ source('notes') }} -- {{ ref('large') }}",
        "select id, topic from {{ ref('wide') }}",
        "select id, topic from {{ ref('nowhere') }}",
    ],
    "models/wide.sql": [
        "select *, 1 as one from {{ ref('large') }}",
        "select *, 1 as one from {{ ref('small') }}",
        "select * from {{ ref('small') }} union all by name select * from {{ ref('large') }}",
        "select id as topic, topic as id from {{ ref('large') }}",
    ],
    "project/macros/words.sql": [
        "{% macro loud(name) %}upper({{ name }}){% endmacro %}\n",
        "{% macro loud(name) %}lower({{ name }}){% endmacro %}\n",
        "{% macro loud(name) %}read_text({{ name }}){% endmacro %}\n",
    ],
    "project/bqbuild.yml": [
        "name: many\nversion: 1\nvars: {least: 2}\n",
        "name: many\nversion: 1\nvars: {least: 3}\nselectors: {asked: 'kind:synthesize'}\n",
        "name: many\nversion: 1\nvars: {least: 2}\nmodels: {+volatile: true}\n",
    ],
    "project/sources.lock": [
        "sources:\n  notes:\n    id: bigint\n    topic: varchar\n    size: bigint\n",
        "sources:\n  notes:\n    id: bigint\n    TOPIC: varchar\n    size: bigint\n    more: bigint\n",
        "sources: {}\n",
    ],
    "prompts/ask.md": ["{% include 'how' %}\nAsk about {{ topic }}.\n", "Ask about {{ id }} and {{ one }}.\n"],
    "models/code.py": [
        "from helper import mark\n\ndef shout(batch):\n    return batch if mark else None\n",
        "def shout(batch):\n    return batch\n",
    ],
}


@pytest.fixture
def many(capitals: Space) -> Space:
    """A project with a file of every kind."""
    return write_many(capitals)


def everything(bqbuild: Bqbuild) -> dict[str, Any]:
    """What the commands say that look at a whole project."""
    planned = bqbuild("plan", "--json")
    return {"code": planned.code, "plan": planned.out, "errors": planned.err}


@pytest.mark.parametrize("seed", range(4))
def test_random_edits_show_the_same_with_findings_and_without(
    seed: int, many: Space, bqbuild: Bqbuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    codes = set()
    for _ in range(14):
        for path in chance.sample(sorted(FORMS), chance.choice((1, 1, 2))):
            weights = [4, *[1] * (len(FORMS[path]) - 1)]
            many.write(path, chance.choices(FORMS[path], weights)[0])
        found = seen(bqbuild, many.root) | everything(bqbuild)
        monkeypatch.setenv(OFF, "1")
        anew = seen(bqbuild, many.root) | everything(bqbuild)
        monkeypatch.delenv(OFF)
        assert found == anew
        codes.add(found["code"])
    assert {0, 2} <= codes


def new_findings(space: Space) -> int:
    """How many analyses one look at all of the project takes, recipes included."""
    with open_and_remember(space.root, target=None, variables=None, values={}) as session:
        for name in session.dag.order:
            session.recipe(name)
        findings = session.project.findings
        return len(findings.used.keys() - findings.known.keys())


def test_an_edit_analyses_what_it_changes_and_nothing_else(many: Space) -> None:
    many.write("models/wide.sql", "select *, 1 as one from {{ ref('large') }}")
    assert new_findings(many) == 7  # the order, and of three models columns and identity
    assert new_findings(many) == 0
    many.edit("models/wide.sql", "1 as one", "2 as two")
    assert new_findings(many) == 2
    many.edit("prompts/how.md", "short", "brief")
    many.edit("models/code.py", "batch if", "batch  if")
    assert new_findings(many) == 0
    many.edit("models/large.sql", "as topic", "as topic, size")  # both that read it are given other columns
    assert new_findings(many) == 4
    many.edit("models/large.sql", "as topic, size", "as topic")
    assert new_findings(many) == 0


def test_what_a_model_may_do_counts_beside_its_text(many: Space, bqbuild: Bqbuild) -> None:
    many.write("models/large.sql", "{{ config(volatile=true) }}select now() as id, 'x' as topic")
    assert bqbuild("ls").code == 0
    many.edit("models/large.sql", "true", "false")
    done = bqbuild("ls")
    assert done.code == 2
    assert "now()" in done.err


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data.replace(b"topic", b"TOPIC"),
        lambda data: data.partition(b"\n")[2],
    ],
    ids=["cut off", "empty", "altered", "not signed"],
)
def test_findings_are_not_trusted_where_they_are_damaged_or_foreign(
    damage: Callable[[bytes], bytes], many: Space
) -> None:
    first = new_findings(many)
    path = many.root / FOLDER / FINDINGS
    path.write_bytes(damage(path.read_bytes()))
    assert new_findings(many) == first > 0


def test_findings_of_another_release_of_a_library_do_not_count(
    many: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    library = tmp_path / "lib" / "some_library_that_analyses.py"
    library.write_text("version = 1")
    monkeypatch.syspath_prepend(library.parent)
    monkeypatch.setattr(outline_cache, "LIBRARIES", ("some_library_that_analyses",))
    first = new_findings(many)
    assert new_findings(many) == 0
    library.write_text("version = 22")
    assert new_findings(many) == first


def test_nothing_is_kept_where_that_is_turned_off_or_a_secret_shows(
    many: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    many.write("models/large.sql", "select id, topic, 'sk-in-the-sql' as size from {{ source('notes') }}")
    monkeypatch.setenv("LLM_API_KEY", "sk-in-the-sql")
    new_findings(many)
    monkeypatch.delenv("LLM_API_KEY")
    monkeypatch.setenv(OFF, "1")
    new_findings(many)
    assert not (many.root / FOLDER / FINDINGS).exists()


def test_findings_that_nobody_asks_for_go_in_the_end(many: Space) -> None:
    new_findings(many)
    path, key = many.root / FOLDER / FINDINGS, local_key()
    assert key is not None
    document = read_signed(path, key)
    assert document is not None
    write_signed(path, key, document | {"found": document["found"] | {"0" * 32: "unused"}})
    for number in range(16):
        many.write("models/wide.sql", f"select {number} as n")
        new_findings(many)
        kept = read_signed(path, key)
        assert kept is not None
        assert "0" * 32 in kept["found"]
    many.write("models/wide.sql", "select 'the last' as n")
    new_findings(many)
    kept = read_signed(path, key)
    assert kept is not None
    assert "0" * 32 not in kept["found"]
    assert len(kept["found"]) < 60


def test_what_raises_is_no_finding() -> None:
    findings = Findings({Digest("0" * 32): 1})

    def refuse() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        findings.find("a", [1], refuse)
    assert findings.find("a", [1], lambda: 2) == 2
    assert findings.find("a", [1], lambda: 3) == 2
    assert findings.find("a", [1.0], lambda: 3) == 3
    assert findings.find("b", [1], lambda: 4) == 4
