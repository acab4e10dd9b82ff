"""C2: comments, whitespace, case, key order, descriptions, tags, tests, limits, prices and URLs rebuild nothing."""

from __future__ import annotations

import pytest

from tests.space import Space, statuses

SQL = "models/staging/clean_notes.sql"
MODELS = "models/models.yml"
PROFILES = "project/profiles.yml"
PROMPT = "prompts/ask.md"

EDITS = {
    "SQL comment": (SQL, "select id", "-- the notes that say something\nselect id"),
    "SQL case and spacing": (SQL, "select id, topic, text from", "SELECT\n  id,\n  topic,\n  text\nFROM"),
    "YAML comment": (MODELS, "models:\n", "models:\n  # what the LLMs make\n"),
    "YAML key order": (MODELS, "    prompt: ask\n    llm: writer\n", "    llm: writer\n    prompt: ask\n"),
    "YAML flow style": (
        MODELS,
        "params: {temperature: 0.7, max_tokens: 200}",
        "params: {max_tokens: 200, temperature: 0.7}",
    ),
    "description": (MODELS, "    kind: synthesize\n", "    kind: synthesize\n    description: exam questions\n"),
    "tags": (MODELS, "    kind: refine\n", "    kind: refine\n    tags: [nightly]\n"),
    "data tests": (
        MODELS,
        "    kind: annotate\n",
        "    kind: annotate\n    columns: {question: {tests: [not_null]}}\n",
    ),
    "explicit default": (MODELS, "    kind: synthesize\n", "    kind: synthesize\n    samples: 1\n"),
    "concurrency": (PROFILES, "max_concurrency: 64", "max_concurrency: 2"),
    "timeout": (PROFILES, "timeout: 120", "timeout: 60"),
    "retries": (PROFILES, "retries: 6", "retries: 1"),
    "price": (PROFILES, "input: 0.5", "input: 5.0"),
    "key": (PROFILES, "env_var('LLM_API_KEY', '')", "env_var('LLM_API_KEY', 'another')"),
    "prompt description": (PROMPT, "one question for one grade", "a question for a grade"),
    "Jinja comment on its own line": (PROMPT, "user:\n", "{# ask for one only #}\nuser:\n"),
    "Jinja comment at the end of a line": (PROMPT, "Answer in JSON.", "Answer in JSON. {# not Markdown #}"),
    "explicit on_error": (MODELS, "    kind: synthesize\n", "    kind: synthesize\n    on_error: drop\n"),
    "explicit constrain": (MODELS, "output: {format: json,", "output: {format: json, constrain: false,"),
    "description of an output column": (
        MODELS,
        "question: string",
        "question: {type: string, description: what is asked}",
    ),
    "order of output columns": (
        MODELS,
        "{question: string, answer: string}",
        "{answer: string, question: string}",
    ),
    "error rate": (MODELS, "    kind: refine\n", "    kind: refine\n    max_error_rate: 0.5\n"),
}


@pytest.mark.parametrize("name", EDITS)
def test_c2_form_rebuilds_nothing(built: Space, name: str) -> None:
    before = built.digests()
    built.edit(*EDITS[name])
    results = built.run()
    assert set(statuses(results).values()) == {"cached"}
    assert built.sent == 0
    assert built.digests() == before


def test_c2_another_url_of_the_same_llm_rebuilds_nothing(built: Space) -> None:
    built.edit("project/profiles.yml", "endpoints: []", "endpoints: ['{{ env_var(\"LLM_URL\") }}']")
    assert set(statuses(built.run()).values()) == {"cached"}
    assert built.sent == 0


def test_c2_what_does_matter_still_counts(built: Space) -> None:
    built.edit(MODELS, "temperature: 0.7", "temperature: 0.8")
    results = built.run()
    assert results["questions"].status == "success"
    assert results["questions"].counts.new_calls == 8
