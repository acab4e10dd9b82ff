from __future__ import annotations

import csv
import io

from tests.cli.conftest import Bqbuild
from tests.space import Space


def test_json_is_a_list_of_rows_with_our_columns_last(bqbuild: Bqbuild, built: Space) -> None:
    rows = bqbuild("show", "kept", "--limit", "3", "--output", "json").json()
    assert len(rows) == 3
    assert list(rows[0])[:4] == ["id", "topic", "text", "grade"]
    assert list(rows[0])[-3:] == ["_bq_id", "_bq_parent", "_bq_calls"]
    assert isinstance(rows[0]["_bq_calls"], list)


def test_csv_is_csv(bqbuild: Bqbuild, built: Space) -> None:
    rows = list(csv.DictReader(io.StringIO(bqbuild("show", "notes", "--output", "csv", "--limit", "-1").out)))
    assert len(rows) == 5
    assert rows[0]["id"] == "fr"


def test_a_table_has_a_line_a_row_and_says_how_many_there_are(bqbuild: Bqbuild, built: Space) -> None:
    done = bqbuild("show", "questions")
    assert len(done.out.splitlines()) == 2 + 5
    assert "5 of 8 rows" in done.err


def test_inline_queries_may_use_jinja(bqbuild: Bqbuild, built: Space) -> None:
    done = bqbuild(
        "show",
        "--inline",
        "select count(*) as n from {{ ref('kept') }} where length(text) > {{ var('min_words') }}",
        "--json",
    )
    assert done.json() == [{"n": 8}]


def test_side_tables_can_be_shown(bqbuild: Bqbuild, built: Space) -> None:
    built.edit("models/models.yml", "length(question) > 3", "grade = 'primary'")
    bqbuild("run", "-q")
    rows = bqbuild("show", "kept__rejects", "--json").json()
    assert {row["_bq_rule"] for row in rows} == {"long_enough"}


def test_an_inline_query_reaches_no_file(bqbuild: Bqbuild, built: Space) -> None:
    done = bqbuild("show", "--inline", "select * from read_text('/etc/hostname')")
    assert done.code == 1
    assert "--inline" in done.err
    assert not done.out


def test_wrong_sql_is_told_in_a_line(bqbuild: Bqbuild, built: Space) -> None:
    done = bqbuild("show", "--inline", "select nope from {{ ref('kept') }}")
    assert done.code == 1
    assert "nope" in done.err
    assert "Traceback" not in done.err


def test_an_unknown_model_offers_the_nearest(bqbuild: Bqbuild, built: Space) -> None:
    done = bqbuild("show", "keptt")
    assert done.code == 2
    assert "did you mean 'kept'?" in done.err


def test_a_model_that_is_not_built_says_how_to_build_it(bqbuild: Bqbuild, capitals: Space) -> None:
    done = bqbuild("show", "kept")
    assert done.code == 1
    assert "bqbuild run --select +kept" in done.err


def test_one_of_model_and_inline_is_needed(bqbuild: Bqbuild, capitals: Space) -> None:
    assert bqbuild("show").code == 2
    assert bqbuild("show", "kept", "--inline", "select 1").code == 2


def test_replies_cannot_play_tricks_on_the_terminal(bqbuild: Bqbuild, capitals: Space) -> None:
    capitals.server.answer = lambda body: '{"question": "\\u001b[2Jgone\\u202e?", "answer": "a\\nb"}'
    assert bqbuild("run", "-q", "-s", "+questions").code == 0
    done = bqbuild("show", "questions")
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
    assert "\\u001b[2Jgone" in done.out
    assert "a⏎b" in done.out
