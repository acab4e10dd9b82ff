"""Edits of a project's data and definition, and what a run after them may do at most.

The judge is brute force: a clean build of the edited project, against a server of its own that answers every request
as the first one does. What it asks for and was never answered before is what a run has to send; its tables are what the
run's tables must be. A node may run where the edit touches its declaration, or where a table above it changed.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import xxhash

from bqbuild.core.events import NodeResult
from tests.llm_server import Body, LlmServer
from tests.space import Space

NOTES, EXTRAS = "project/sources/notes.jsonl", "project/sources/extras.jsonl"
MODELS, PROFILES = "models/models.yml", "project/profiles.yml"

Row = dict[str, Any]


@dataclass(frozen=True)
class Edit:
    """A change of the project; `touches` are the nodes whose declaration means something else afterwards."""

    apply: Callable[[Space], None]
    touches: frozenset[str] = frozenset()


def _rows(path: str, change: Callable[[list[Row]], list[Row]]) -> Edit:
    def apply(space: Space) -> None:
        rows = change([json.loads(line) for line in space.read(path).splitlines()])
        space.write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    return Edit(apply)


def _text(path: str, old: str, new: str, *touches: str) -> Edit:
    return Edit(lambda space: space.edit(path, old, new), frozenset(touches))


def _write(path: str, text: str, *touches: str) -> Edit:
    return Edit(lambda space: space.write(path, text), frozenset(touches))


_CANADA = {"id": "ca", "topic": "Canada", "text": "Ottawa became the capital in 1857.", "year": 1857}
_EGYPT = {"id": "eg", "topic": "Egypt", "text": "Cairo lies near the delta of the Nile.", "year": 969}
_CHILE = {"topic": "Chile", "text": "Santiago lies in the valley of the Mapocho."}
# read as the text '1984' and the number 1984, which are the types that the lock has for these columns
_ODD = {"id": "od", "topic": 1984, "text": "The name of a book by George Orwell.", "year": 1984.0}


def _edited(rows: list[Row]) -> list[Row]:
    return [row | {"text": row["text"].replace("Tokyo", "Edo, now Tokyo,")} for row in rows]


DATA: Mapping[str, Edit] = {
    "append": _rows(NOTES, lambda rows: [*rows, _CANADA]),
    "insert": _rows(NOTES, lambda rows: [*rows[:2], _EGYPT, *rows[2:]]),
    "edit": _rows(NOTES, _edited),
    "delete": _rows(NOTES, lambda rows: [*rows[:1], *rows[2:]]),
    "reorder": _rows(NOTES, lambda rows: rows[::-1]),
    "duplicate": _rows(EXTRAS, lambda rows: [*rows, *rows]),
    "keyless": _rows(EXTRAS, lambda rows: [_CHILE, *rows[::-1]]),
    "odd type": _rows(NOTES, lambda rows: [_ODD, *rows]),
}

_SQL_FORM = """-- the notes that say something, of both sources
SELECT topic, "text", year
FROM {{ source('notes') }}   -- with a key
WHERE ({{ says_something('text') }})
UNION ALL
SELECT topic, text, NULL AS year FROM {{ source('extras') }} WHERE {{ says_something('text') }}
"""

DEFINITION: Mapping[str, Edit] = {
    "prompt": _text("prompts/improve.md", "Improve", "Correct and improve", "answers"),
    "system prompt": _text("prompts/ask.md", "You write exam", "You write short exam", "questions"),
    "included prompt": _text("prompts/partials/rules.md", "Answer in", "Answer only in", "questions"),
    "model": _text(PROFILES, "critic-1", "critic-2", "labelled", "kept"),
    "parameters": _text(MODELS, "max_tokens: 200", "max_tokens: 300", "answers"),
    "schema": _text(
        MODELS, "answer: string}}\n  - name: answers", "answer: string, hint: string}}\n  - name: answers", "questions"
    ),
    "parser": _text(MODELS, "{format: json,", "{format: tags,", "questions"),
    "matrix": _text(MODELS, "[primary, graduate]", "[graduate, adult, primary]", "questions"),
    "samples": _text(MODELS, "    matrix:", "    samples: 2\n    matrix:", "questions"),
    "SQL meaning": _text(
        "models/clean.sql",
        "where {{ says_something('text') }}\nunion",
        "where {{ says_something('text') }} and topic <> 'France'\nunion",
        "clean",
    ),
    "SQL form": _write("models/clean.sql", _SQL_FORM),
    "macro": _text("project/macros/words.sql", "the country", "the land", "questions"),
    "code": _text("models/scoring/measure.py", "LEAST = 1", "LEAST = 8", "scored"),
    "code form": _text("models/scoring/score.py", "# one column more", "# a column more, for the filter"),
    "var": _text("project/bqbuild.yml", "tone: plain", "tone: friendly", "questions"),
    "judge": _text("prompts/judge.md", "sound", "sound and complete", "kept"),
    "filter rule": _text(MODELS, "words > 0", "words > 6", "kept"),
    "text of the mix": _text(MODELS, " A: {{", " Answer: {{", "blend"),
    "var of the mix": _text("project/bqbuild.yml", "label: Q", "label: Question", "blend"),
}

NOTHING = Edit(lambda space: None)


def answer(body: Body) -> str:
    """A function of the request alone. A question reads as JSON and as tags, and says other things in each."""
    mark = xxhash.xxh3_64_hexdigest(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))[:8]
    text = "\n".join(str(message["content"]) for message in body["messages"])
    if "question, answer and hint" in text:
        parts = {name: f"<{name}>The {name} {mark}.</{name}>" for name in ("question", "answer", "hint")}
        return orjson.dumps(parts).decode()
    if "from 1 to 5" in text:
        return str(1 + int(mark, 16) % 5)
    if "yes or no" in text:
        return "no" if int(mark, 16) % 4 == 0 else "yes"
    return f"Answer {mark}."


@dataclass(frozen=True)
class Outcome:
    """What a run did, and what it should have done at most: requests, tables, nodes."""

    sent: int
    ideal: int
    failed: tuple[str, ...]
    stale: tuple[str, ...]
    wasted: tuple[str, ...]

    @property
    def is_perfect(self) -> bool:
        """Whether nothing was sent or built in vain, nothing is missing and nothing is stale."""
        return self.sent == self.ideal and not (self.failed or self.stale or self.wasted)


@dataclass
class Subject:
    """A project that has been built, and all that was ever answered to it."""

    space: Space
    answered: Counter[bytes] = field(default_factory=Counter)

    def copy(self, root: Path) -> Subject:
        """The same project, store and history in another folder."""
        shutil.copytree(self.space.root, root)
        return Subject(Space(root, self.space.server), self.answered.copy())

    def step(self, *edits: Edit, clean: Space) -> Outcome:
        """Edit, run, and compare with `clean`, which is built from nothing of the same files."""
        before = self.space.digests()
        for edit in edits:
            edit.apply(self.space)
        wanted, tables = build_clean(self.space, clean)
        already = len(self.space.server.requests)
        results = self.space.run()
        now = bodies(self.space.server, already)
        ideal = (wanted - self.answered).total()
        self.answered += now
        after = self.space.digests()
        touched = frozenset[str]().union(*(edit.touches for edit in edits))
        return Outcome(
            sent=now.total(),
            ideal=ideal,
            failed=tuple(name for name, result in results.items() if result.status not in ("success", "cached")),
            stale=tuple(sorted(name for name, digest in tables.items() if after.get(name) != digest)),
            wasted=_wasted(self.space, results, touched, {name for name in after if after[name] != before.get(name)}),
        )


def first_build(root: Path, server: LlmServer) -> Subject:
    """The project, built once."""
    space = Space.copy("mutations", root, server)
    results = space.run()
    assert {result.status for result in results.values()} == {"success"}, results
    return Subject(space, bodies(server, 0))


def build_clean(space: Space, clean: Space) -> tuple[Counter[bytes], dict[str, str]]:
    """What a build of these files from nothing asks for, and its tables."""
    shutil.rmtree(clean.root, ignore_errors=True)
    # the lock is part of the project: it is committed, as people are told to
    shutil.copytree(space.root, clean.root, ignore=shutil.ignore_patterns(".bqbuild"))
    already = len(clean.server.requests)
    clean.run()
    return bodies(clean.server, already), clean.digests()


def bodies(server: LlmServer, start: int) -> Counter[bytes]:
    """The requests that arrived, from the one numbered `start` on."""
    return Counter(orjson.dumps(body, option=orjson.OPT_SORT_KEYS) for body in server.requests[start:])


def _wasted(
    space: Space, results: Mapping[str, NodeResult], touched: frozenset[str], changed: set[str]
) -> tuple[str, ...]:
    """Nodes that ran though nobody touched them and no table that they read is another one than before."""
    with space.session() as session:
        parents = {str(name): {str(parent) for parent in above} for name, above in session.dag.parents.items()}
    ran = [name for name, result in results.items() if result.status != "cached"]
    return tuple(name for name in ran if name not in touched and not parents[name] & changed)
