"""A project with a file of every kind, for tests of what is remembered of projects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bqbuild.run.outline import OutlineView
from bqbuild.run.outline_cache import OFF, read_outline
from tests.cli.conftest import Bqbuild
from tests.space import Space

FILES = {
    "project/bqbuild.yml": "name: many\nversion: 1\nvars: {least: 2}\nselectors: {asked: 'kind:synthesize'}\n",
    "project/profiles.yml": """
default: dev
targets:
  dev: &dev
    store: .bqbuild
    llms:
      writer:
        provider: openai
        base_url: "{{ env_var('LLM_URL') }}"
        model: "{{ env_var('LLM_MODEL', 'mock') }}"
        api_key: "{{ env_var('LLM_API_KEY', '') }}"
  other:
    store: .bqbuild
    llms: {writer: {provider: openai, base_url: "http://localhost:1/v1", model: another}}
""",
    "project/sources/notes.csv": "id,topic,size\n1,rain,3\n2,snow,5\n3,hail,1\n",
    "project/sources.lock": "sources:\n  notes:\n    id: bigint\n    topic: varchar\n    size: bigint\n",
    "project/macros/words.sql": "{% macro loud(name) %}upper({{ name }}){% endmacro %}\n",
    "models/sources.yml": "sources: [{name: notes, path: sources/notes.csv, key: id}]\n",
    "models/large.sql": """
select id, {{ loud('topic') }} as topic from {{ source('notes') }}
where size >= {{ var('least') }}
""",
    "models/more/small.sql": "{{ config(tags=['quick']) }}\nselect id, topic from {{ ref('large') }}\n",
    "models/models.yml": """
models:
  - {name: shouted, kind: python, from: small, function: 'code.py:shout', columns: {id: bigint, topic: varchar}}
  - name: questions
    kind: synthesize
    from: small
    prompt: ask
    llm: writer
    output: {format: json, columns: {question: string}}
""",
    "models/code.py": "from helper import mark\n\ndef shout(batch):\n    return batch if mark else None\n",
    "models/helper.py": "mark = '!'\n",
    "prompts/ask.md": "{% include 'how' %}\nAsk about {{ topic }}.\n",
    "prompts/how.md": "Be short.\n",
}


def write_many(space: Space) -> Space:
    """The project, in place of what is there."""
    for folder in ("models", "prompts", "project"):
        for path in sorted((space.root / folder).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    for path, text in FILES.items():
        space.write(path, text)
    return space


def remembered(root: Path, target: str | None = None, variables: str | None = None) -> OutlineView | None:
    """What is remembered of the project, if it still counts."""
    return read_outline(root, target=target, variables=variables)


def seen(bqbuild: Bqbuild, root: Path, *flags: str) -> dict[str, Any]:
    """What `ls` and `parse` make of the project."""
    listed, parsed = bqbuild("ls", "--json", *flags), bqbuild("parse", "--json", *flags)
    found: dict[str, Any] = {"ls": listed.out, "codes": [listed.code, parsed.code], "errors": listed.err + parsed.err}
    if parsed.code == 0:
        manifest = json.loads((root / ".bqbuild" / parsed.json()["target"] / "manifest.json").read_text("utf-8"))
        found |= {"parse": parsed.json(), "nodes": manifest["nodes"], "children": manifest["children"]}
    return found


def seen_anew(bqbuild: Bqbuild, root: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> dict[str, Any]:
    """The same, where nothing is remembered."""
    monkeypatch.setenv(OFF, "1")
    try:
        return seen(bqbuild, root, *flags)
    finally:
        monkeypatch.delenv(OFF)
