"""What a row template reads, and the form of it that counts: both from its syntax tree, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateSyntaxError, nodes

from bqbuild.config.sandbox import TemplateEnvironment
from bqbuild.config.scope import names_from_outside
from bqbuild.config.templatetext import ROLE_FUNCTION
from bqbuild.core.errors import did_you_mean

NOT_FOR_ROWS = ("env_var", "secret_env_var", "ref", "source", "config")


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong with a template, at a line as Jinja counts it."""

    message: str
    line: int
    hint: str | None = None


@dataclass(slots=True)
class Analysis:
    """What one template says by itself. Numbers are lines.

    `variables` has None where each `var()` of that name has a default; `uses` are the templates that it names, with
    whether they see its row.
    """

    columns: dict[str, int] = field(default_factory=dict)
    variables: dict[str, int | None] = field(default_factory=dict)
    macros: set[str] = field(default_factory=set)
    uses: list[tuple[str, bool, int]] = field(default_factory=list)
    assigned: frozenset[str] = frozenset()
    mistakes: list[Mistake] = field(default_factory=list)


def analyse(tree: nodes.Template, environment: TemplateEnvironment, name: str, macros: Mapping[str, Any]) -> Analysis:
    """Analyse one template. `macros` are the project's; `name` is what its code calls itself in tracebacks."""
    every = list(tree.find_all(nodes.Node))
    mistakes = list(_unknown_filters(every, environment))
    outside: set[str] = set()
    if not mistakes:
        try:
            outside = names_from_outside(tree, environment, name)
        except TemplateSyntaxError as error:
            mistakes.append(Mistake(error.message or "broken Jinja", error.lineno))
    found = Analysis(mistakes=mistakes)
    _names(every, outside, environment, macros, found)
    _uses(every, found)
    return found


def _unknown_filters(every: Sequence[nodes.Node], environment: TemplateEnvironment) -> Iterator[Mistake]:
    for each in every:
        if not isinstance(each, nodes.Filter | nodes.Test):
            continue
        known: Mapping[str, Any] = environment.filters if isinstance(each, nodes.Filter) else environment.tests
        kind = "filter" if isinstance(each, nodes.Filter) else "test"
        if each.name not in known:
            yield Mistake(f"unknown {kind} '{each.name}'", each.lineno, did_you_mean(each.name, known))


def _names(
    every: Sequence[nodes.Node],
    outside: set[str],
    environment: TemplateEnvironment,
    macros: Mapping[str, Any],
    found: Analysis,
) -> None:
    called = {id(call.node): call for call in every if isinstance(call, nodes.Call)}
    assigned: set[str] = {macro.name for macro in every if isinstance(macro, nodes.Macro)}
    for name in every:
        if not isinstance(name, nodes.Name):
            continue
        call = called.get(id(name))
        if name.ctx != "load":
            assigned.add(name.name)
        elif call is not None and name.name == "var":
            _variable(call, found)
        elif name.name in macros and name.name in outside:
            found.macros.add(name.name)
        elif name.name not in outside or name.name in environment.globals:
            continue
        elif call is not None:
            found.mistakes.append(_not_callable(name, macros, environment))
        else:
            found.columns.setdefault(name.name, name.lineno)
            found.columns[name.name] = min(found.columns[name.name], name.lineno)
    for imported in every:
        if isinstance(imported, nodes.Import):
            assigned.add(imported.target)
        elif isinstance(imported, nodes.FromImport):
            assigned.update(each if isinstance(each, str) else each[1] for each in imported.names)
    found.assigned = frozenset(assigned)


def _variable(call: nodes.Call, found: Analysis) -> None:
    first = call.args[0] if call.args else None
    if isinstance(first, nodes.Const) and isinstance(first.value, str):
        has_default = len(call.args) > 1
        if not has_default or first.value not in found.variables:
            found.variables[first.value] = None if has_default else call.lineno
    else:
        hint = "write var('name'): what a prompt reads must be known before it runs"
        found.mistakes.append(Mistake("var() needs the name of a variable as text", call.lineno, hint))


def _not_callable(name: nodes.Name, macros: Mapping[str, Any], environment: TemplateEnvironment) -> Mistake:
    if name.name in ("env_var", "secret_env_var"):
        return Mistake(f"{name.name}() does not work in a prompt", name.lineno, "use var(), set in project/bqbuild.yml")
    if name.name in NOT_FOR_ROWS:
        return Mistake(f"{name.name}() is for SQL models only", name.lineno)
    known = [each for each in (*macros, *environment.globals) if not each.startswith("_")]
    return Mistake(f"unknown function or macro '{name.name}'", name.lineno, did_you_mean(name.name, known))


def _uses(every: Sequence[nodes.Node], found: Analysis) -> None:
    for each in every:
        if not isinstance(each, nodes.Include | nodes.Import | nodes.FromImport | nodes.Extends):
            continue
        with_row = getattr(each, "with_context", True)
        target = getattr(each, "template", None)
        if isinstance(target, nodes.Const) and isinstance(target.value, str):
            found.uses.append((target.value, with_row, each.lineno))
        else:
            word = type(each).__name__.removeprefix("From").lower()
            hint = "what a prompt reads must be known before it runs"
            found.mistakes.append(Mistake(f"{word} needs the name of one prompt as text", each.lineno, hint))


def tree_identity(body: list[nodes.Node], named: Callable[[str], object]) -> list[object]:
    """The canonical form of a template's body: no line numbers, adjacent text merged. `named` resolves templates."""
    parts: list[object] = []
    for node in body:
        for part in node.nodes if isinstance(node, nodes.Output) else [node]:
            value = _identity(part, named)
            if isinstance(value, str) and parts and isinstance(parts[-1], str):
                parts[-1] += value
            elif value != "":
                parts.append(value)
    return parts


def _identity(node: object, named: Callable[[str], object]) -> object:
    if isinstance(node, nodes.TemplateData):
        return node.data
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == ROLE_FUNCTION:
        return {"role": node.args[0].as_const()}
    if isinstance(node, nodes.Include | nodes.Import | nodes.FromImport | nodes.Extends):
        target = node.template
        rest = {key: _identity(value, named) for key, value in node.iter_fields() if key != "template"}
        name = target.value if isinstance(target, nodes.Const) else None
        return [type(node).__name__, rest, named(name) if isinstance(name, str) else _identity(target, named)]
    if isinstance(node, nodes.Node):
        return [type(node).__name__, {key: _identity(value, named) for key, value in node.iter_fields()}]
    return _identities(node, named) if isinstance(node, list | tuple) else node


def _identities(items: Sequence[object], named: Callable[[str], object]) -> list[object]:
    statements = [each for each in items if isinstance(each, nodes.Stmt)]
    if statements and len(statements) == len(items):
        return tree_identity(list(statements), named)
    return [_identity(each, named) for each in items]
