"""The parts of a recipe: components taken apart as far as a user can point at what changed. Pure.

A part is named `<component>/<detail>`, or by the component alone. Parts explain; what must be built is decided by the
components' digests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from bqbuild.config.project import Project
from bqbuild.config.prompts import PromptTemplate
from bqbuild.core.errors import Where
from bqbuild.core.hashing import canonical, digest
from bqbuild.core.records import Node, Part
from bqbuild.graph.recipe import Facts, component_values
from bqbuild.graph.sql import KnownSql

CodeTexts = Mapping[str, tuple[int, str]]
"""The line and text of each function that Python code reaches, by `file:name`."""


def parts_of(node: Node, project: Project, facts: Facts, code: CodeTexts) -> dict[str, Part]:
    """All parts of the node's recipe."""
    parts: dict[str, Part] = {}
    for name, value in component_values(node, project, facts).items():
        parts.update(_parts(node, project, name, value, code))
    redact = project.secrets.redact
    return {
        name: part if redact(part.text) == part.text else Part(part.digest, "", part.is_source, part.where)
        for name, part in parts.items()
    }


def _parts(
    node: Node, project: Project, name: str, value: Any, code: CodeTexts
) -> dict[str, Part] | Iterator[tuple[str, Part]]:
    if "prompt:" in name:
        return _of_prompt(name, project.prompts[name.split("prompt:", 1)[1]])
    if name == "sql" and node.kind == "sql":
        return _of_sql(node, project, value)
    if name == "code" and node.kind == "python":
        return _of_code(value, code)
    if name == "rules" and node.kind == "filter":
        return _of_rules(node, value)
    owner, dot, last = name.rpartition(".")
    judge = owner + dot if owner.startswith("rules.") else ""
    if last == "variables" or name == "variables":
        return {f"{name}/{key}": _value(item, project.places.get(f"vars.{key}")) for key, item in value.items()}
    if name == f"{judge}llm.model":
        llm = _asker(node, judge).llm
        place = project.places.get(f"llms.{llm}")
        return {f"{name}/{key}": _value(item, _llm_place(project, llm, key, place)) for key, item in value.items()}
    if name == f"{judge}params":
        return {f"{name}/{key}": _value(item, _param_place(node, project, judge, key)) for key, item in value.items()}
    return _of_value(node, name, value)


def _of_prompt(name: str, prompt: PromptTemplate) -> dict[str, Part]:
    return {
        f"{name}/{piece}": Part(digest(found.identity), found.text, True, found.where)
        for piece, found in prompt.pieces().items()
    }


def _of_sql(node: Node, project: Project, identity: str) -> Iterator[tuple[str, Part]]:
    """The text with its Jinja, what that reaches, and what came of it all."""
    source = node.spec.sql or ""
    variables, macros = project.sql_uses(source)
    start = node.places.get("sql", Where(node.path, 1))
    yield "sql/text", Part(digest(" ".join(source.split())), source, True, start)
    for macro, file in macros.items():
        text = file.text(macro)
        yield f"sql/macro:{macro}", Part(digest(text), text, True, Where(file.shown_as, file.names[macro]))
    for name in variables:
        yield f"sql/var:{name}", _value(project.variables.get(name), project.places.get(f"vars.{name}"))
    yield "sql/rendered", Part(digest(identity), KnownSql(node, project.findings).identity, True, Where(node.path))


def _of_code(value: Mapping[str, Any], code: CodeTexts) -> Iterator[tuple[str, Part]]:
    for path, names in value["code"]["reached"].items():
        for name, statements in names.items():
            line, text = code.get(f"{path}:{name}", (0, ""))
            yield f"code/{path}:{name}", Part(digest(statements), text, True, Where(f"models/{path}", line))
    for package, version in value["packages"].items():
        yield f"code/package:{package}", _value(version, None)


def _of_rules(node: Node, rules: list[dict[str, Any]]) -> Iterator[tuple[str, Part]]:
    for number, rule in enumerate(rules):
        yield f"rules/{rule.get('name', number)}", _value(rule, node.places.get(f"rules.{number}", node.where))
    order = [rule.get("name", number) for number, rule in enumerate(rules)]
    yield "rules/", _value(order, node.places.get("rules", node.where))


def _of_value(node: Node, name: str, value: Any) -> Iterator[tuple[str, Part]]:
    """The keys of a mapping, and theirs; anything else whole."""
    if not isinstance(value, dict) or not value:
        yield name, _value(value, _declared_at(node, name))
        return
    for key, item in value.items():
        if isinstance(item, dict) and item:
            for inner, leaf in item.items():
                yield f"{name}/{key}.{inner}", _value(leaf, _declared_at(node, f"{name}.{key}.{inner}"))
        else:
            yield f"{name}/{key}", _value(item, _declared_at(node, f"{name}.{key}"))


def _value(value: Any, where: Where | None) -> Part:
    return Part(digest(value), json.dumps(canonical(value), sort_keys=True, ensure_ascii=False), False, where)


def _declared_at(node: Node, key: str) -> Where:
    """Where a dotted key stands, else the nearest key around it that does."""
    while key:
        if key in node.places:
            return node.places[key]
        key = key.rpartition(".")[0]
    return node.where


def _llm_place(project: Project, llm: str, key: str, otherwise: Where | None) -> Where | None:
    return project.places.get(f"llms.{llm}.{key}", otherwise)


def _asker(node: Node, judge: str) -> Any:
    """The spec that names prompt, LLM and parameters: the node's own, or that of a rule's judge."""
    if not judge:
        return node.spec
    name = judge.removeprefix("rules.").removesuffix(".")
    return next(rule.judge for rule in node.spec.rules if rule.name == name)


def _param_place(node: Node, project: Project, judge: str, key: str) -> Where | None:
    """Where the value in force is written: the model wins over the prompt, the prompt over the connection."""
    asker = _asker(node, judge)
    if key in asker.params:
        numbers = [number for number, rule in enumerate(getattr(node.spec, "rules", ())) if rule.judge is asker]
        prefix = f"rules.{numbers[0]}.judge." if numbers else ""
        return _declared_at(node, f"{prefix}params.{key}")
    places = project.prompts[asker.prompt].places
    return places.get(f"params.{key}") or project.places.get(f"llms.{asker.llm}.params.{key}")
