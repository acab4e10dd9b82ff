"""The smallest project that has one of everything, and what to do with it in tests of reading projects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

from bqbuild.config.project import Project, load_project
from bqbuild.core.errors import ProjectError, ProjectErrors

FILES: Mapping[str, str] = {
    "project/bqbuild.yml": """\
        name: capitals
        vars: {min_words: 3}
        models:
          staging: {tags: [staging]}
        selectors:
          questions: "kind:synthesize+"
        """,
    "project/profiles.yml": """\
        default: dev
        targets:
          dev:
            llms:
              writer:
                provider: openai
                base_url: "{{ env_var('LLM_URL') }}"
                model: mock
                api_key: "{{ env_var('LLM_API_KEY', '') }}"
          paper:
            llms:
              writer: {provider: openai, model: big, base_url: "{{ env_var('PAPER_URL') }}"}
        """,
    "models/models.yml": """\
        sources:
          - name: notes
            path: sources/notes.jsonl
        models:
          - name: questions
            kind: synthesize
            from: clean_notes
            prompt: ask
            llm: writer
            matrix: {grade: [primary, undergraduate]}
            output: {format: json, columns: {question: string}}
          - name: kept
            kind: filter
            from: questions
            rules:
              - {name: long_enough, sql: "length(question) > 3"}
        """,
    "models/staging/clean_notes.sql": "select id, topic from {{ source('notes') }} where n >= {{ var('min_words') }}\n",
    "prompts/ask.md": "user:\nOne question for {{ grade }} on {{ topic }}.\n",
}
ENVIRON = {"LLM_URL": "http://127.0.0.1:1/v1"}


def write(root: Path, changes: Mapping[str, str | bytes | None] | None = None) -> Path:
    """Write the project with some files changed, added, or (None) left out."""
    for name, text in {**FILES, **(changes or {})}.items():
        if text is None:
            continue
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
    return root


def load(root: Path, changes: Mapping[str, str | bytes | None] | None = None, **options: Any) -> Project:
    """Write and load the project."""
    options.setdefault("environ", ENVIRON)
    return load_project(write(root, changes), **options)


def mistakes(root: Path, changes: Mapping[str, str | bytes | None], **options: Any) -> list[str]:
    """What loading the changed project complains of: `place: message`, and ` | hint` where there is one."""
    try:
        load(root, changes, **options)
    except ProjectErrors as error:
        return [str(each).replace("\n  hint: ", " | ") for each in error.errors]
    except ProjectError as error:
        return [str(error).replace("\n  hint: ", " | ")]
    return []


def models(text: str) -> dict[str, str | bytes | None]:
    """A change that adds a file of models."""
    return {"models/extra.yml": "models:\n" + indent(dedent(text), "  ")}
