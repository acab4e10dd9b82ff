"""Random projects as values: what a history edits, and the files that it comes to.

Every model has the columns `topic` (text), `n` (integer) and `text`, so that anything can read anything; what an LLM
adds is called after the model's number, so that no two models clash and a renamed one keeps its columns.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import xxhash

TOPICS = ("rain", "snow", "hail", "fog", "")
TEXTS = ("Warm air rises.", "Ice melts at zero.", "fog is a cloud", "Wind moves.", "  ", "Ünï\u0301codé “quotes”")
PARTS = ("topic", "n", "text")
LLM_KINDS = ("synthesize", "refine", "annotate")
KINDS = ("sql", "synthesize", "annotate", "filter", "refine", "python", "mix")
ERRORS = (None, None, "drop", "null")

Row = dict[str, Any]


@dataclass
class Source:
    """Seed rows in a file; `is_keyed` says whether `id` is a key."""

    name: str
    is_keyed: bool
    rows: list[Row]
    has_extra: bool = False


@dataclass
class Model:
    """A model: `parents` are numbers of sources and models, `choices` what its declaration is made of."""

    name: str
    kind: str
    parents: list[int]
    choices: dict[str, int]


@dataclass
class World:
    """A project. Sources and models are numbered alike, in the order of the graph."""

    sources: dict[int, Source] = field(default_factory=dict)
    models: dict[int, Model] = field(default_factory=dict)
    count: int = 0
    variable: int = 0

    def copy(self) -> World:
        """A world that can be edited without this one."""
        return copy.deepcopy(self)

    def add_source(self, is_keyed: bool, numbers: list[int]) -> int:
        """A source with a row for each number."""
        self.count += 1
        self.sources[self.count] = Source(f"s{self.count}", is_keyed, [])
        for number in numbers:
            self.append(self.count, number)
        return self.count

    def append(self, source: int, number: int) -> None:
        """A new row at the end of a source."""
        rows = self.sources[source].rows
        key = max((row["id"] for row in rows), default=0) + 1
        topic, text = TOPICS[number % len(TOPICS)], TEXTS[number % len(TEXTS)]
        rows.append({"id": key, "topic": topic, "n": number % 7, "text": text})

    def add_model(self, kind: str, parents: list[int], choices: Mapping[str, int]) -> int:
        """A model that reads nodes already there."""
        self.count += 1
        self.models[self.count] = Model(f"m{self.count}", kind, parents, dict(choices))
        return self.count

    def name(self, number: int) -> str:
        """The name of a source or model."""
        return self.sources[number].name if number in self.sources else self.models[number].name

    def leaves(self) -> list[int]:
        """The models that no model reads."""
        read = {parent for model in self.models.values() for parent in model.parents}
        return [number for number in self.models if number not in read]

    def files(self) -> dict[str, str]:
        """The project's files, but for what never changes."""
        files = {f"project/sources/{source.name}.jsonl": _jsonl(source) for source in self.sources.values()}
        files["models/sources.yml"] = json.dumps({"sources": [_source(source) for source in self.sources.values()]})
        declared = []
        for number, model in self.models.items():
            if model.kind == "sql":
                files[f"models/{model.name}.sql"] = _sql(self, number, model)
            else:
                declared.append(_DECLARED[model.kind](self, number, model))
            if model.kind == "python":
                files[f"models/{model.name}_code.py"] = _code(model)
            for name, text in _prompts(number, model).items():
                files[f"prompts/{name}.md"] = text
        # one list of keys in another order is the same project
        files["models/models.yml"] = json.dumps({"models": declared[::-1] if self.count % 2 else declared})
        files["project/bqbuild.yml"] = json.dumps({"name": "world", "version": 1, "vars": {"tone": str(self.variable)}})
        return files


PROFILES = """
default: dev
targets:
  dev:
    store: .bqbuild
    llms:
      writer:
        {provider: openai, base_url: "{{ env_var('LLM_URL') }}", model: mock, retries: 0, max_concurrency: 8}
"""


def _jsonl(source: Source) -> str:
    extra = {"extra": "x"} if source.has_extra else {}
    return "".join(json.dumps(row | extra) + "\n" for row in source.rows)


def _source(source: Source) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": source.name, "path": f"sources/{source.name}.jsonl", "format": "jsonl"}
    return declared | ({"key": ["id"]} if source.is_keyed else {})


def _said(model: Model) -> dict[str, Any]:
    """What is said about a model and can change nothing."""
    about = model.choices["about"]
    said: dict[str, Any] = {"name": model.name, "kind": model.kind}
    if about:
        said |= {"description": f"about {about}", "tags": [f"tag{about}"]}
    if model.choices["version"]:
        said["version"] = model.choices["version"] + 1
    return said


def made_column(number: int, model: Model) -> str | None:
    """The text column that an LLM model adds."""
    return {"synthesize": f"o{number}", "annotate": f"l{number}"}.get(model.kind)


def _table(world: World, number: int, side: str = "") -> str:
    """What SQL calls a node's table."""
    name = f"'{world.name(number)}{side}'"
    return f"{{{{ ref({name}) }}}}" if number in world.models else f"{{{{ source({name}) }}}}"


def _sql(world: World, number: int, model: Model) -> str:
    first = model.parents[0]
    one, two = _table(world, first), _table(world, model.parents[-1])
    limit = model.choices["number"] % 4
    parent = world.models.get(first)
    made = made_column(first, parent) if parent else None
    whole = f"select topic, n, text from {one}"
    ways = [
        f"{whole} where n >= {limit}",
        f"select a.topic, a.n + b.n as n, a.text from {one} a join {two} b on a.topic = b.topic"
        " qualify row_number() over (partition by a.topic, a.text order by b.n, b.text) <= 2",
        f"select topic, count(*) % 5 as n, max(text) as text from {one} group by topic",
        f"{whole} union select topic, n, text from {two}",
        f"{whole} union all select topic, n, text from {two} where n > {limit}",
        f"select distinct topic, n, text from {one}",
        f"select topic, row_number() over (partition by topic order by n) as n, text from {one}",
        f"{whole} except select topic, n, text from {two} where n < {limit}",
        f"{whole} intersect select topic, n, text from {one} where n <> {limit}",
        f"with recursive c(topic, n, text, d) as (select topic, n, text, 0 from {one} union all"
        f" select topic, n + 1, text, d + 1 from c where d < {limit % 2 + 1}) select topic, n, text from c",
        f"{whole} order by n limit {limit + 2}",
        f"{whole} limit {limit + 2}",
        f"select topic, first(n) as n, list(text)[1] as text from {one} group by topic",
        f"select topic, n, coalesce({made}, text) as text from {one}" if made else f"{whole} where topic <> 'fog'",
        f"select topic, n, text from {_table(world, first, '__rejects')}"
        if parent and parent.kind == "filter"
        else f"{whole} where exists (select 1 from {two} b where b.n = {limit})",
        f"select reason as topic, {limit} as n, coalesce(response, '') as text from {_table(world, first, '__errors')}"
        if parent and parent.kind in LLM_KINDS
        else f"{whole} where n = {limit} or topic = 'snow'",
        f"select topic, n, text || coalesce(len(_bq_calls), 0) as text from {one}"
        if parent and parent.kind in LLM_KINDS
        else f"select topic, cast(any_value(n) as bigint) as n, arg_max(text, n) as text from {one} group by all",
        f"select topic, cast(sum(n) over (order by n rows 1 preceding) as bigint) as n, text from {one}",
    ]
    query = ways[model.choices["way"] % len(ways)]
    if model.choices["form"] % 3 == 1:
        query = "-- a comment\n" + query.replace("select ", "SELECT\n  ").replace(" from ", "\nFROM   ")
    if model.choices["version"] or model.choices["form"] % 3 == 2:
        said = [f"version='{model.choices['version'] + 1}'"] if model.choices["version"] else []
        said += ["tags=['formed']"] if model.choices["form"] % 3 == 2 else []
        query = f"{{{{ config({', '.join(said)}) }}}}\n{query}"
    return query + "\n"


def _where(model: Model) -> dict[str, Any]:
    ways: list[str | None] = [None, None, "n >= 2", "topic <> 'rain'", "n > 1000"]
    where = ways[model.choices["where"] % len(ways)]
    if where is not None and model.choices["form"] % 2:
        where = where.replace(" ", "  ") + " /* so */"
    return {"where": where} if where else {}


def _llm(world: World, number: int, model: Model, output: dict[str, Any]) -> dict[str, Any]:
    on_error = ERRORS[model.choices["error"] % len(ERRORS)]
    declared: dict[str, Any] = _said(model) | {
        "from": world.name(model.parents[0]),
        "prompt": _prompt_name(number, model),
        "llm": "writer",
        "output": output,
        "max_error_rate": 1.0,
    }
    if model.choices["params"] % 3:
        declared["params"] = {"temperature": model.choices["params"] % 3 / 2}
    if model.choices["carry"] % 4 == 1:
        declared["carry"] = list(PARTS)
    if on_error:
        declared["on_error"] = on_error
    return declared | _where(model)


def _synthesize(world: World, number: int, model: Model) -> dict[str, Any]:
    columns = {f"o{number}": "string"} | ({f"b{number}": "string"} if model.choices["columns"] % 3 == 1 else {})
    output: dict[str, Any] = {"format": "json", "columns": columns}
    if model.choices["explode"] % 3 == 1:
        output["explode"] = True
    declared = _llm(world, number, model, output)
    matrix = (None, ["low"], ["low", "high"])[model.choices["matrix"] % 3]
    if matrix:
        declared["matrix"] = {f"grade{number}": matrix}
    if model.choices["samples"] % 3:
        declared["samples"] = model.choices["samples"] % 3 + 1
    return declared


def _refine(world: World, number: int, model: Model) -> dict[str, Any]:
    declared = _llm(world, number, model, {"format": "text", "columns": {"text": "string"}})
    accept = (None, "length(text) % 2 = 0", "n % 2 = 0")[model.choices["accept"] % 3]
    if accept:
        declared["accept"] = accept
    if model.choices["samples"] % 2:
        declared["rounds"] = 2
    return declared


def _annotate(world: World, number: int, model: Model) -> dict[str, Any]:
    output = {"format": "choice", "columns": {f"l{number}": {"values": ["high", "low", "none"]}}}
    declared = _llm(world, number, model, output)
    if model.choices["samples"] % 3:
        declared["votes"] = 2 * (model.choices["samples"] % 3) + 1
    return declared


def _filter(world: World, number: int, model: Model) -> dict[str, Any]:
    judge = {
        "prompt": _prompt_name(number, model),
        "llm": "writer",
        "output": {"format": "choice", "columns": {"verdict": {"values": ["high", "low", "none"]}}},
        "accept": "verdict <> 'none'" if model.choices["accept"] % 2 else "verdict = 'high' or n > 3",
    }
    dedup: dict[str, Any] = {"columns": ["text"], "method": "minhash" if model.choices["samples"] % 3 == 2 else "exact"}
    if model.choices["accept"] % 3:
        dedup["keep"] = "n desc"
    rules = [{"name": "small", "sql": "n < 5"}, {"name": "once", "dedup": dedup}, {"name": "judged", "judge": judge}]
    chosen = [rule for place, rule in enumerate(rules) if model.choices["rules"] % 7 + 1 & 1 << place]
    turned = chosen[::-1] if model.choices["order"] % 2 else chosen
    return _said(model) | {"from": world.name(model.parents[0]), "rules": turned, "max_error_rate": 1.0}


def _mix(world: World, number: int, model: Model) -> dict[str, Any]:
    names = dict.fromkeys(world.name(parent) for parent in model.parents)
    given = [{"model": name, "weight": 1.0 + place} for place, name in enumerate(names)]
    declared = _said(model) | {"from": given, "heldout": (0.0, 0.4)[model.choices["accept"] % 2]}
    if model.choices["columns"] % 2:
        declared["by"] = ["topic"]
    if model.choices["number"] % 3:
        declared |= {"rows": 3 + model.choices["number"] % 5, "repeat": 1 + model.choices["order"] % 2}
    if model.choices["way"] % 2:
        declared["text"] = "{{ topic }}: {{ text }}"
    return declared


def _python(world: World, number: int, model: Model) -> dict[str, Any]:
    way = ("shorten", "first_rows", "numbered")[model.choices["way"] % 3]
    function = {"function": f"{model.name}_code:{way}", "mode": "batch" if way == "shorten" else "table"}
    return _said(model) | {"from": [world.name(model.parents[0])], **function}


_DECLARED = {
    "synthesize": _synthesize,
    "refine": _refine,
    "annotate": _annotate,
    "filter": _filter,
    "mix": _mix,
    "python": _python,
}


def _code(model: Model) -> str:
    comment = "# a comment\n" if model.choices["form"] % 2 else ""
    return f"""{comment}import pyarrow as pa
import pyarrow.compute as pc

LENGTH = {5 + model.choices["number"] % 3}


def plain(data):
    return data.select(["_bq_id", "topic", "n", "text"])


def shorten(batch):
    rows = plain(batch)
    return rows.set_column(3, "text", pc.utf8_slice_codeunits(rows["text"], 0, LENGTH))


def first_rows(table):
    return plain(table).slice(0, LENGTH)


def numbered(table):
    rows = plain(table).drop_columns(["_bq_id"])
    return rows.set_column(1, "n", pa.array(range(len(rows)), pa.int64()))
"""


def _prompt_name(number: int, model: Model) -> str:
    # two models may well share one prompt, and so their requests
    is_shared = model.kind != "synthesize" and model.choices["prompt"] % 4 == 0
    return f"shared_{model.kind}" if is_shared else f"p{number}"


def _prompts(number: int, model: Model) -> dict[str, str]:
    """The prompt of a model, if it has one; one that is shared is the same whoever writes it."""
    if model.kind not in (*LLM_KINDS, "filter"):
        return {}
    name = _prompt_name(number, model)
    ends = {"refine": "Rewrite.", "synthesize": _json_words(number, model)}
    words = ends.get(model.kind, "Say one of high, low, none.")
    if name != f"p{number}":
        return {name: f"user:\n{words} On {{{{ topic }}}}\n"}
    reads = ("{{ n }}", "{{ text }}", "{{ text }} {{ var('tone') }}")[model.choices["reads"] % 3]
    if model.kind == "synthesize" and model.choices["matrix"] % 3:
        reads += f" {{{{ grade{number} }}}}"
    form = model.choices["form"] % 3
    comment = "{# said again #}" if form == 1 else ""
    front = f"system: You are {'terse' if model.choices['version'] else 'plain'}.\ndescription: form {form}\n"
    version = f"Version {model.choices['prompt']}."
    return {name: f"---\n{front}---\nuser:\n{comment}{version} {words} On {{{{ topic }}}}: {reads}\n"}


def _json_words(number: int, model: Model) -> str:
    several = " as a list" if model.choices["explode"] % 3 == 1 else ""
    # not of every column: what a reply lacks is asked for again
    return f"JSON{several} with the keys o{number}" + (f" b{number}" if model.choices["prompt"] % 2 else "")


def answer(body: Mapping[str, Any], number: int) -> str:
    """What the LLM says to a request that it gets for the `number`-th time: a function of these alone.

    One in nine is unusable.
    """
    mark = xxhash.xxh3_64_intdigest(orjson.dumps([body, number], option=orjson.OPT_SORT_KEYS))
    said = str(body["messages"][-1]["content"])
    asked = "\n".join(str(message["content"]) for message in body["messages"] if message["role"] == "user")
    if mark % 9 == 0:
        return "I cannot say" if "one of" in asked or "JSON" in asked else ""
    if "JSON" in asked:
        keys = [word for word in asked.split() if word[1:].isdigit() and word[0] in "ob"]
        item = {key: f"{key} {mark % 5}" for key in keys}
        again = {key: f"{key} {mark % 3}" for key in keys}
        return json.dumps([item, again][: mark % 3] if "as a list" in asked else item)
    if "one of" in asked:
        return ("high", "low", "none")[mark // 9 % 3]
    return f"{said[:20]} {mark % 97}"
