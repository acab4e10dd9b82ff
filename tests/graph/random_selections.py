"""Makes up projects, each as one of dbt and one of bqbuild, and expressions that select in them. Seeded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

FOLDERS = ("", "staging/", "marts/", "marts/core/", "core/", "staging/web/")
TAGS = ("daily", "nightly", "a.b", "core")
OWNERS = ("ann", "bob")
GROUPS = ("people", "money")
Question = tuple[list[str] | None, list[str] | None]


@dataclass(frozen=True, slots=True)
class Model:
    """A SQL model: where it is, what it reads, its `config()`."""

    name: str
    folder: str
    reads: tuple[str, ...]
    config: dict[str, Any]
    described: bool

    @property
    def path(self) -> str:
        """Its file."""
        return f"models/{self.folder}{self.name}.sql"


@dataclass(frozen=True, slots=True)
class Made:
    """A project: its models, its sources by name and tags, its named selectors in dbt's form."""

    models: tuple[Model, ...]
    sources: dict[str, list[str]]
    selectors: list[dict[str, Any]]


def make_project(random: Random) -> Made:
    """A random DAG in folders."""
    sources = {name: _some(random, TAGS, 0.2) for name in ("raw.notes", "raw.books", "web.pages")}
    models: list[Model] = []
    for number in range(random.randint(4, 14)):
        name = random.choice(["stg_", "m", "core_", "x.y_"]) + str(number)
        if random.random() < 0.08 and not any(model.name == "core" for model in models):
            name = "core"
        above = [model.name for model in models if model.config.get("enabled", True)]
        reads = tuple(random.sample([*above, *sources], k=min(random.randint(0, 3), len(above) + 3)))
        models.append(Model(name, random.choice(FOLDERS), reads, _config(random), random.random() < 0.3))
    made = Made(tuple(models), sources, [])
    for number in range(5):
        definition = _definition(random, made, depth=0)
        made.selectors.append({"name": f"sel{number}", "definition": definition})
    return made


def write_dbt(made: Made, root: Path) -> None:
    """The project as dbt's."""
    _write(root / "dbt_project.yml", {"name": "shop", "version": "1.0", "config-version": 2, "profile": "p"})
    _write(root / "profiles.yml", {"p": {"target": "d", "outputs": {"d": {"type": "duckdb", "path": ":memory:"}}}})
    tables: dict[str, list[Any]] = {}
    for name, tags in made.sources.items():
        source, _, table = name.partition(".")
        tables.setdefault(source, []).append({"name": table, "config": {"tags": tags}})
    sources = [{"name": source, "tables": each} for source, each in tables.items()]
    groups = [{"name": name, "owner": {"name": "x"}} for name in GROUPS]
    _write(root / "models/staging/sources.yml", {"version": 2, "sources": sources, "groups": groups})
    _write_models(made, root)


def write_bqbuild(made: Made, root: Path) -> None:
    """The same project as bqbuild's."""
    _write(root / "project/bqbuild.yml", {"name": "shop", "selectors": made.selectors})
    _write(root / "project/profiles.yml", {"default": "dev", "targets": {"dev": {}}})
    sources = [{"name": name, "path": "sources/x.jsonl", "tags": tags} for name, tags in made.sources.items()]
    _write(root / "models/staging/sources.yml", {"sources": sources})
    _write_models(made, root)


def make_question(random: Random, made: Made) -> Question:
    """What --select and --exclude are given."""
    select = None if random.random() < 0.1 else [_union(random, made) for _ in range(random.choice([1, 1, 1, 2]))]
    exclude = [_union(random, made)] if select is None or random.random() < 0.3 else None
    return select, exclude


def _config(random: Random) -> dict[str, Any]:
    config: dict[str, Any] = {"materialized": random.choice(["view", "table"])}
    if tags := _some(random, TAGS, 0.3):
        config["tags"] = tags
    if random.random() < 0.4:
        config["meta"] = {"owner": random.choice(OWNERS), "tier": random.choice([1, 2]), "live": random.random() < 0.5}
    if random.random() < 0.3:
        config["group"] = random.choice(GROUPS)
    if random.random() < 0.05:
        config["enabled"] = False
    return config


def _some(random: Random, values: tuple[str, ...], chance: float) -> list[str]:
    return [value for value in values if random.random() < chance]


def _write_models(made: Made, root: Path) -> None:
    described: dict[str, list[Any]] = {}
    for model in made.models:
        arguments = ", ".join(f"{key}={value!r}" for key, value in model.config.items())
        reads = [f"{{{{ source('{name.replace('.', chr(39) + ', ' + chr(39))}') }}}}" if name in made.sources
                 else f"{{{{ ref('{name}') }}}}" for name in model.reads]  # fmt: skip
        tables = " cross join ".join(f"{read} as t{number}" for number, read in enumerate(reads))
        text = f"{{{{ config({arguments}) }}}}\nselect 1 as x{' from ' + tables if tables else ''}\n"
        path = root / model.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if model.described:
            described.setdefault(model.folder.split("/")[0], []).append({"name": model.name, "description": "x"})
    for folder, entries in described.items():
        _write(root / "models" / folder / "schema.yml", {"models": entries})


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")  # JSON is YAML


def _union(random: Random, made: Made) -> str:
    return " ".join(_intersection(random, made) for _ in range(random.choice([1, 1, 1, 2, 3])))


def _intersection(random: Random, made: Made) -> str:
    return ",".join(_criterion(random, made) for _ in range(random.choice([1, 1, 1, 2, 3])))


def _criterion(random: Random, made: Made) -> str:
    before = random.choice(["", "", "", "+", "1+", "2+", "0+", "@"])
    behind = random.choice(["", "", "", "+", "+1", "+2", "+0"]) if before != "@" or random.random() < 0.03 else ""
    if random.random() < 0.03:
        before, behind = random.choice(
            [("++", ""), ("@@", ""), ("@+", ""), ("@1+", ""), ("", "++"), ("+ ", ""), ("-", "")]
        )
    return f"{before}{_written(random, made)}{behind}"


def _written(random: Random, made: Made) -> str:
    method, value = _pair(random, made)
    bare = method in ("fqn", "path", "file") and random.random() < 0.7
    return value if bare else f"{method}:{value}"


def _pair(random: Random, made: Made) -> tuple[str, str]:
    """A method and a value of it, often one that matches."""
    model = random.choice(made.models)
    folders = model.folder.strip("/").split("/") if model.folder else []
    method = random.choice(
        ["fqn"] * 8 + ["path"] * 3 + ["file", "tag", "tag", "source", "source", "group", "package", "resource_type"]
        + ["config.materialized", "config.meta.owner", "config.meta.tier", "config.meta.live", "config.tags"]
        + ["config.group", "config.meta", "config.nothing", "config", "tag.x", "exposure", "selector", "selector"]
        + ["colour"] * (random.random() < 0.2)
    )  # fmt: skip
    values = {
        "fqn": [model.name, model.name, ".".join([*folders, model.name]), ".".join(["shop", *folders, model.name]),
                ".".join(["shop", *folders]), *folders, "core", "raw.notes", "x", "y", "nothing", "", "a/",
                f"{'.'.join(folders)}.*", "shop.*.core.*", "*.core", model.name.lower() + ".sql", "x.*", "shop.x"],
        "path": [model.path, f"models/{model.folder}", f"models/{model.folder}".rstrip("/"), "models/*/*.sql", "models",
                 "models/**/*.sql", "models/staging/sources.yml", "models/marts/schema.yml", "models/schema.yml",
                 "models/**/schema.yml", "**/core", "./models/core", "models//core", "*/*", "models/co?e", "core"],
        "file": [f"{model.name}.sql", model.name, "stg_*.sql", "schema.yml", "*.yml", "SQL"],
        "source": ["raw", "raw.notes", "shop.raw.notes", "*", "r*.b*", "*.*.pages", "web", "notes", "a.b.c.d"],
        "group": [*GROUPS, "p*", "none"],
        "package": ["shop", "this", "s*", "other"],
        "resource_type": ["model", "source", "test", "seed", "table"],
        "config.materialized": ["view", "table", "v*", "VIEW"],
        "config.meta.owner": [*OWNERS, "a*"],
        "config.meta.tier": ["1", "2"],
        "config.meta.live": ["true", "True", "false", "FALSE", "yes"],
        "config.group": [*GROUPS],
        "config.meta": ["owner", "ann"],
        "selector": [*(each["name"] for each in made.selectors), "sel*", "sel[01]", "selfish"],
        "exposure": ["x"],
    }  # fmt: skip
    value = random.choice(values.get(method, [*TAGS, "d*", "*ly", "a.?"]))
    if value and random.random() < 0.15:
        place = random.randrange(len(value))
        value = value[:place] + random.choice(["*", "?", "[a-z]", ""]) + value[place + 1 :]
    return method, value


def _definition(random: Random, made: Made, depth: int) -> Any:
    """A named selector in dbt's long form, always one that dbt can read."""
    kind = random.choice(["text", "pair", "long", "long", "union", "intersection"] if depth < 3 else ["text", "long"])
    if kind in ("union", "intersection"):
        parts = [_definition(random, made, depth + 1) for _ in range(random.randint(1, 3))]
        if random.random() < 0.4:
            parts.append({"exclude": [_definition(random, made, depth + 1) for _ in range(random.randint(1, 2))]})
        return {kind: parts}
    method, value = _sound_pair(random, made)
    if kind == "text":
        return f"{random.choice(['', '+', '@', '1+'])}{method}:{value}"
    if kind == "pair":
        return {method: value}
    flags: dict[str, Any] = {key: True for key in ("parents", "childrens_parents") if random.random() < 0.25}
    if "childrens_parents" not in flags and random.random() < 0.3:
        flags["children"] = True
    flags |= {key: random.randint(0, 2) for key in ("parents_depth", "children_depth") if random.random() < 0.3}
    if depth == 0 and random.random() < 0.4:  # inside of a list dbt reads it as the list's
        flags["exclude"] = [_definition(random, made, depth + 1)]
    number = {"method": "config.meta.tier", "value": random.choice([1, 2])}
    return {"method": method, "value": value, **flags} if random.random() < 0.9 else {**number, **flags}


def _sound_pair(random: Random, made: Made) -> tuple[str, str]:
    """A pair that is no error, and of a selector one that was made before."""
    while True:
        method, value = _pair(random, made)
        if method == "selector" and value not in [each["name"] for each in made.selectors]:
            continue
        if method != "colour" and value not in ("a.b.c.d", "table", "", "a/") and "+" not in value and "," not in value:
            return method, value
