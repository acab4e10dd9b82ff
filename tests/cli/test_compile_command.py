from __future__ import annotations

from tests.cli.conftest import Bqbuild
from tests.llm_server import LlmServer
from tests.space import Space


def test_sql_comes_out_after_jinja_and_alone(bqbuild: Bqbuild, capitals: Space) -> None:
    done = bqbuild("compile", "clean_notes")
    assert done.code == 0
    assert done.out == 'select id, topic, text from "notes" where length(text) >= 3\n'


def test_a_prompt_is_rendered_for_a_real_row_and_sent_nowhere(
    bqbuild: Bqbuild, capitals: Space, llm_server: LlmServer
) -> None:
    done = bqbuild("compile", "questions")
    assert done.code == 0
    assert "system:\nYou write exam questions.\nuser:\nWrite one question for primary students on France." in done.out
    assert done.out.count("-- prompt ask for row") == 1
    assert "grade=primary → writer" in done.out
    assert not llm_server.requests
    assert bqbuild("show", "clean_notes").code == 1  # no pointer has moved


def test_limit_counts_prompts_and_json_has_them_all(bqbuild: Bqbuild, capitals: Space) -> None:
    (compiled,) = bqbuild("compile", "questions", "--limit", "3", "--json").json()
    assert [prompt["cell"] for prompt in compiled["prompts"]] == [
        "grade=primary",
        "grade=undergraduate",
        "grade=primary",
    ]
    assert compiled["prompts"][0]["params"] == {"temperature": 0.7, "max_tokens": 200}
    assert compiled["sql"] is None


def test_without_rows_a_note_says_why_there_is_no_prompt(bqbuild: Bqbuild, capitals: Space) -> None:
    done = bqbuild("compile", "answers")
    assert done.code == 0
    assert "`questions` is not built" in done.err


def test_judges_are_compiled_too(bqbuild: Bqbuild, built: Space) -> None:
    built.edit(
        "models/models.yml",
        "    rules:\n",
        "    rules:\n      - name: judged\n        judge: {prompt: label, llm: writer, accept: \"grade_given = '1'\", "
        "output: {format: choice, columns: {grade_given: {values: ['1', '2']}}}}\n",
    )
    done = bqbuild("compile", "kept")
    assert done.code == 0
    assert "-- prompt label for row" in done.out


def test_inline_sql_is_compiled(bqbuild: Bqbuild, capitals: Space) -> None:
    assert bqbuild("compile", "--inline", "select 1 from {{ ref('kept') }}").out == 'select 1 from "kept"\n'
    assert bqbuild("compile", "--inline", "select 1 from {{ ref('keptt') }}").code == 2
