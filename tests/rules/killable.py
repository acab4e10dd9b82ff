"""A small project with every kind of node that calls an LLM, made to be killed, and the books of its server."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import xxhash

from bqbuild.store.journal import JournalReader, decode_line
from bqbuild.store.segments import DATA, Segment
from tests.llm_server import Fault, LlmServer
from tests.space import Space

PROFILES = """
default: dev
targets:
  dev: &dev
    store: .bqbuild
    llms:
      writer: {provider: openai, base_url: "{{ env_var('LLM_URL') }}", model: mock, max_concurrency: 4}
  ci: *dev
"""
MODELS = """
sources:
  - {name: notes, path: sources/notes.jsonl, key: [id]}
models:
  - name: questions
    kind: synthesize
    from: clean
    prompt: ask
    llm: writer
    matrix: {grade: [low, high]}
    output: {format: json, columns: {question: string, answer: string}}
  - name: answers
    kind: refine
    from: questions
    prompt: improve
    llm: writer
    output: {format: text, columns: {answer: string}}
  - name: labelled
    kind: annotate
    from: answers
    prompt: label
    llm: writer
    output: {format: choice, columns: {level: {values: [low, high]}}}
  - name: kept
    kind: filter
    from: labelled
    rules:
      - {name: once, dedup: {columns: [topic, grade], keep: id}}
      - {name: long_enough, sql: length(question) > 3}
      - name: judged
        judge:
          {prompt: judge, llm: writer, accept: "verdict = 'low'",
           output: {format: choice, columns: {verdict: {values: [low, high]}}}}
  - {name: short, kind: python, from: kept, function: "short:short"}
"""
FILES = {
    "project/bqbuild.yml": "name: killable\nversion: 1\n",
    "project/profiles.yml": PROFILES,
    "models/models.yml": MODELS,
    "models/clean.sql": "select id, topic, text from {{ source('notes') }} where length(text) > 2\n",
    "models/counts.sql": "select level, grade, count(*) as rows from {{ ref('labelled') }} group by level, grade\n",
    "models/short.py": "def short(batch):\n    return batch.select(['_bq_id', 'question', 'answer'])\n",
    "prompts/ask.md": "user:\nVersion 1. One question for {{ grade }} on {{ topic }}, as JSON. {{ text }}\n",
    "prompts/improve.md": "user:\nVersion 1. Improve: {{ answer }}\n",
    "prompts/label.md": "user:\nVersion 1. One of low, high: {{ question }} {{ answer }}\n",
    "prompts/judge.md": "user:\nVersion 1. One of: low, high. {{ answer }}\n",
}


def write_project(space: Space, notes: int = 8) -> None:
    """Write the project with so many notes."""
    for name, text in FILES.items():
        space.write(name, text)
    rows = [{"id": number, "topic": f"topic {number % 6}", "text": f"note {number}"} for number in range(notes)]
    space.write("project/sources/notes.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def say(body: Mapping[str, Any]) -> str:
    """What the LLM answers: a function of the request alone."""
    mark = xxhash.xxh3_64_intdigest(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
    asked = str(body["messages"][-1]["content"])
    if "JSON" in asked:
        return json.dumps({"question": f"What is {mark % 1000}?", "answer": f"It is {mark}."})
    return ("low", "high")[mark % 2] if "One of" in asked else f"Better {mark}."


class Books:
    """What a server got, by request; what the store has of it; and what kills may have lost."""

    def __init__(self, server: LlmServer) -> None:
        self.server = server
        self.excused: Counter[bytes] = Counter()
        self._go_on = threading.Event()
        self.stop_at: int | None = None
        """The number of a request that is not answered, like all after it, unless the server is told to `go_on`."""
        server.fault = self._hold

    def _hold(self, body: Mapping[str, Any], number: int) -> Fault | None:
        return Fault(hold=self._go_on) if self.stop_at is not None and number >= self.stop_at else None

    def go_on(self) -> None:
        """Answer what is held, and whatever comes."""
        self.stop_at = None
        self._go_on.set()

    def received(self) -> Counter[bytes]:
        """How often each request came."""
        return Counter(map(_form, list(self.server.requests)))

    def missing(self, store: Path, first: int, last: int) -> set[bytes]:
        """Of the requests from one number to another, those whose answers are not recorded."""
        return set(map(_form, self.server.requests[first:last])) - recorded_requests(store)

    def excuse(self, store: Path) -> set[bytes]:
        """Note, after a kill, the requests that came and are not recorded: they may come again. Gives them.

        No request may carry what was answered to one of them: a row is not done before its answer is on disk.
        """
        bodies = {_form(body): body for body in list(self.server.requests)}
        lost = bodies.keys() - recorded_requests(store)
        texts = {text for form in lost if (text := _handed_on(bodies[form]))}
        used = [text for text in texts for body in bodies.values() if text in str(body["messages"][-1]["content"])]
        assert not used, used
        self.excused.update(lost)
        return lost

    def check(self) -> None:
        """No request came twice but those that a kill excused."""
        again = {form: count for form, count in self.received().items() if count > 1 + self.excused[form]}
        assert not again, again


def _handed_on(body: Mapping[str, Any]) -> str:
    """What of the answer to a request only requests of nodes below can have; empty for a choice, which many get."""
    said = say(body)
    if said.startswith("{"):
        return str(json.loads(said)["answer"])
    return said if said.startswith("Better") else ""


def _form(body: Mapping[str, Any]) -> bytes:
    return orjson.dumps([[part["role"], part["content"]] for part in body["messages"]])


def recorded_requests(store: Path) -> set[bytes]:
    """The requests whose answers the call log of a store has."""
    calls = store / "v1" / "calls"
    found: set[bytes] = set()
    readers: list[JournalReader | Segment] = [JournalReader(path) for path in calls.glob("journal-*.jsonl")]
    readers += [Segment(path) for path in (calls / "segments").glob(f"*{DATA}")]
    for reader in readers:
        found |= {orjson.dumps(decode_line(line)["messages"]) for line in reader.sound_lines()}
        reader.close()
    return found
