"""Writes docs/reference/ from the code: the keys of the YAML files from their specs, the command line from click.

`python -m tests.docs.reference` writes the files again; a test compares them with what is there.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from bqbuild.cli.main import COMMANDS, cli
from bqbuild.config.settings import (
    BatchSpec,
    ConnectionSpec,
    PriceSpec,
    ProfilesSpec,
    ProjectSpec,
    PromptFrontMatter,
    TargetSpec,
)
from bqbuild.config.specbase import Spec
from bqbuild.config.specs import (
    SPECS,
    BenchmarkSpec,
    BudgetSpec,
    ColumnSpec,
    CommonSpec,
    DecontaminateRule,
    DedupRule,
    FilterRule,
    JudgeRule,
    LanguageRule,
    LlmSpec,
    MixInput,
    OutputColumn,
    OutputSpec,
    PassRateSpec,
    QualityRule,
    WeightRow,
    WeightsFrom,
)
from tests.docs.meanings import MEANINGS

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
NOTE = "<!-- Written by `python -m tests.docs.reference`. Change the code, not this file. -->"

FILES: tuple[tuple[str, type[Spec]], ...] = (
    ("project/bqbuild.yml", ProjectSpec),
    ("project/profiles.yml", ProfilesSpec),
    ("project/profiles.yml: a target", TargetSpec),
    ("project/profiles.yml: an LLM connection", ConnectionSpec),
    ("project/profiles.yml: `price`", PriceSpec),
    ("project/profiles.yml: `batch`", BatchSpec),
    ("prompts/**/*.md: front matter", PromptFrontMatter),
)
PARTS: tuple[tuple[str, type[Spec]], ...] = (
    ("An entry of `columns`", ColumnSpec),
    ("`output`", OutputSpec),
    ("A column of `output.columns`", OutputColumn),
    ("`budget`", BudgetSpec),
    ("`pass_rate`", PassRateSpec),
    ("A rule of a filter", FilterRule),
    ("`judge`", JudgeRule),
    ("`dedup`", DedupRule),
    ("`decontaminate`", DecontaminateRule),
    ("`language`", LanguageRule),
    ("`quality`", QualityRule),
    ("An input of a mix", MixInput),
    ("`weights` read from a model", WeightsFrom),
    ("`weights` that are given: one entry", WeightRow),
    ("A benchmark", BenchmarkSpec),
)
HIDDEN = {("SqlSpec", "sql")}
"""Keys that no user writes: the SQL stands in a file of its own."""


def pages() -> dict[str, str]:
    """The text of every page by its file name."""
    return {"cli.md": "\n".join(_cli()) + "\n", "yaml.md": "\n".join(_yaml()) + "\n"}


def documented() -> set[str]:
    """`Class.key` for every key that a page shows."""
    shown: set[str] = set()
    classes: list[type[Spec]] = [CommonSpec, LlmSpec, *SPECS.values(), *(spec for _, spec in (*FILES, *PARTS))]
    for spec_class in classes:
        shown |= {f"{_owner(spec_class, key).__name__}.{key}" for key, _ in _keys(spec_class)}
    return shown


def _yaml() -> Iterator[str]:
    yield from ("# YAML keys", "", NOTE, "")
    yield "Unknown keys are errors. A value may be a template: `{{ var('name') }}`, `{{ env_var('NAME', 'default') }}`."
    yield "`bqbuild schema` prints the same as JSON Schemas, for editors."
    yield "Where a list is expected, one value may stand alone."
    for title, spec_class in FILES:
        yield from _section(f"## {title}", spec_class)
    yield from ("", "## models/**/*.yml", "", "Two lists, both optional: `sources` and `models`.")
    yield from _section("### Keys of every model and source", CommonSpec)
    yield from _section("### Keys of the LLM kinds: synthesize, refine, annotate", LlmSpec, without=CommonSpec)
    for kind, spec_class in SPECS.items():
        shared = LlmSpec if issubclass(spec_class, LlmSpec) else CommonSpec
        yield from _section(f"### {'sources' if kind == 'source' else f'kind: {kind}'}", spec_class, without=shared)
    for title, spec_class in PARTS:
        yield from _section(f"### {title}", spec_class)


def _section(title: str, spec_class: type[Spec], *, without: type[Spec] | None = None) -> Iterator[str]:
    shared = {key for key, _ in _keys(without)} if without else set()
    own = [(key, field) for key, field in _keys(spec_class) if key not in shared]
    about = (spec_class.__doc__ or "").strip()
    yield from ("", title, "", re.sub(r"\s*\n\s*", " ", about.replace("\n\n", " ")))
    if not own:
        return
    schema = spec_class.model_json_schema(by_alias=True)
    required = set(schema.get("required", ()))
    yield from ("", "| key | value | default | meaning |", "|---|---|---|---|")
    for key, field in own:
        default = "required" if key in required else _default(field.get("default", _EMPTY))
        meaning = MEANINGS[f"{_owner(spec_class, key).__name__}.{key}"]
        yield f"| `{key}` | {_type(field)} | {default} | {meaning} |".replace("|  |", "| |")


_EMPTY = object()


def _keys(spec_class: type[Spec]) -> list[tuple[str, dict[str, Any]]]:
    properties = spec_class.model_json_schema(by_alias=True)["properties"]
    return [(key, field) for key, field in properties.items() if (spec_class.__name__, key) not in HIDDEN]


def _owner(spec_class: type[Spec], key: str) -> type[Spec]:
    """The class that declares the key: the one furthest up, so that a shared key has one meaning."""
    name = "from_" if key == "from" else key
    bases = [base for base in spec_class.__mro__ if issubclass(base, Spec)]
    return [base for base in bases if name in inspect.get_annotations(base)][-1]


def _default(value: Any) -> str:
    if value is _EMPTY or value is None or value in ("", [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(field: Mapping[str, Any]) -> str:
    """A JSON Schema in words."""
    if "$ref" in field:
        return f"{field['$ref'].rpartition('/')[2].removesuffix('Spec')} (below)"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if "anyOf" in field:
        return _either([part for part in field["anyOf"] if part.get("type") != "null"])
    kind = field.get("type")
    if kind == "array":
        if "prefixItems" in field:
            return f"{len(field['prefixItems'])} {_type(field['prefixItems'][0])}s"
        return f"list of {_type(field.get('items', {}))}"
    if kind == "object":
        values = field.get("additionalProperties")
        return f"mapping to {_type(values)}" if isinstance(values, dict) and values else "mapping"
    names = {"string": "text", "integer": "integer", "number": "number", "boolean": "`true`, `false`"}
    return names.get(str(kind), "any value") + _limits(field)


SCALARS = ("string", "integer", "number", "boolean")


def _either(parts: list[Mapping[str, Any]]) -> str:
    """Alternatives; what may be written as text or as a number is text, and a list of one may be written as the one."""
    if any(part.get("type") == "string" and "enum" not in part for part in parts):
        parts = [part for part in parts if part.get("type") not in SCALARS[1:]]
    words = list(dict.fromkeys(map(_type, parts)))
    items = [
        item for word in words if word.startswith("list of ") for item in word.removeprefix("list of ").split(" or ")
    ]
    return " or ".join(word for word in words if word not in items)


def _limits(field: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field]
    return f" {', '.join(limits)}" if limits else ""


def _cli() -> Iterator[str]:
    context = click.Context(cli, info_name="bqbuild")
    everywhere = {option.name for option in cli.params}
    yield from ("# Command line", "", NOTE, "")
    yield "Exit codes: 0 done; 1 something failed or is missing; 2 usage or configuration; 130 stopped with Ctrl-C."
    yield "Data goes to stdout, everything else to stderr. `NO_COLOR` turns colours off."
    yield from ("", "## Flags of every command", "", "They may stand before or after the command's name.", "")
    yield from _options(cli.params)
    for name in sorted(COMMANDS):
        command = cli.get_command(context, name)
        assert command is not None
        arguments = " ".join(command.collect_usage_pieces(click.Context(command, info_name=name, parent=context)))
        yield from ("", f"## bqbuild {name}", "", f"`bqbuild {name} {arguments}`", "")
        for paragraph in (command.help or "").split("\n\n"):
            yield from (re.sub(r"\s*\n\s*", " ", paragraph.strip()), "")
        yield from _options([option for option in command.params if option.name not in everywhere])


def _options(params: list[click.Parameter]) -> Iterator[str]:
    options = [option for option in params if isinstance(option, click.Option)]
    if not options:
        return
    yield from ("| flag | meaning |", "|---|---|")
    for option in options:
        flags = ", ".join(f"`{flag}`" for flag in option.opts)
        if not option.is_flag:
            flags += f" {_metavar(option.type)}"
        parts = [option.help or ""]
        if isinstance(option.envvar, str):
            parts.append(f"Environment: `{option.envvar}`.")
        if option.show_default:
            parts.append(f"Default: `{option.default}`.")
        yield f"| {flags} | {' '.join(filter(None, parts))} |"


def _metavar(kind: click.ParamType[Any]) -> str:
    if isinstance(kind, click.Choice):
        return ", ".join(f"`{choice}`" for choice in kind.choices)
    return "NUMBER" if isinstance(kind, click.IntRange | click.FloatRange) else kind.name.upper()


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
