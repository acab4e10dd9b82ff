"""The definition hash: what a user declared, normalised so that what cannot matter does not count.

Everything in a spec counts unless `NOT_CONTENT` names it. Defaults are left out, so that writing one out, or a later
release adding a key, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bqbuild.config.project import Project
from bqbuild.config.specs import BenchmarkSpec, LlmSpec, OutputSpec, Spec
from bqbuild.core.errors import Where
from bqbuild.core.hashing import Digest, digest
from bqbuild.core.records import Node, NodeName, Recipe
from bqbuild.graph.ordering import check_order
from bqbuild.graph.predicates import parse_predicate
from bqbuild.graph.sql import KnownSql

NOT_CONTENT = frozenset(
    {
        # what a node is called and said about it
        "name",
        "kind",
        "description",
        "tags",
        "meta",
        "enabled",
        "group",
        "license",
        # what is checked, not made
        "tests",
        "contract",
        "max_error_rate",
        # what it may cost, and how it is carried out
        "budget",
        "materialized",
        "volatile",
        "threads",
        "checkpoint_every",
        "sample",
        # which inputs: their content is in the build key, under their names
        "from",
        # counted in a better form below
        "llm",
        "prompt",
        "params",
        "output",
        "on_error",
        "where",
        "accept",
        "sql",
        "function",
        "packages",
        "columns",
        # where a source's bytes come from: their content is in the build key
        "path",
        "url",
        "sha256",
    }
)
"""The keys at the top of a declaration that cannot change a row of the node's table, or are counted in another form."""


_ON_ERROR = {"synthesize": "drop", "refine": "keep", "annotate": "drop"}
"""What `on_error` means to a kind where it is left out. Only refine has a meaning that cannot be written."""


@dataclass(frozen=True, slots=True)
class LlmFact:
    """Who a connection's LLM is, and whether it is sent schemas unless told otherwise."""

    identity: Mapping[str, Any]
    constrains: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What planning must know of the world, looked up beforehand by `run.facts`.

    `weights` maps a model as written in `base`, `models` or `tokenizer` to its identity; `code` maps a Python node
    to the identity of its code; `semantics` maps a kind to its version.
    """

    semantics: Mapping[str, int]
    llms: Mapping[str, LlmFact] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[NodeName, Any] = field(default_factory=dict)


def recipe_of(node: Node, project: Project, facts: Facts) -> Recipe:
    """The recipe of a node."""
    values = component_values(node, project, facts)
    components = {name: digest(value) for name, value in values.items()}
    semantics = facts.semantics[node.kind]
    whole = digest({"kind": node.kind, "semantics": semantics, "components": components})
    return Recipe(node.kind, semantics, components, whole, _places(node, project, components))


def component_values(node: Node, project: Project, facts: Facts) -> dict[str, Any]:
    """What the components of the node's recipe are digests of."""
    values = _declared(node.spec)
    values.update(_KINDS.get(node.kind, _plain)(node, project, facts))
    if node.spec.version != "1":
        values["version"] = node.spec.version
    return values


def asked_of(recipe: Recipe) -> list[Digest]:
    """What a node's calls are made of but for its rows: prompt, variables, LLM and parameters, once for each prompt.
    Nodes that share none of it send no equal requests, unless two prompts come to the same text."""
    components = recipe.components
    found = []
    for name in components:
        inside, is_prompt, _ = name.partition("prompt:")
        if is_prompt and f"{inside}llm.model" in components:
            with_it = [components[f"{inside}{part}"] for part in ("variables", "llm.model", "params")]
            found.append(digest([components[name], *with_it]))
    return found


def _declared(spec: Spec) -> dict[str, Any]:
    given = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {key: value for key, value in given.items() if key not in NOT_CONTENT and key != "version"}


def _plain(node: Node, project: Project, facts: Facts) -> dict[str, Any]:
    return {}


def _source(node: Node, project: Project, facts: Facts) -> dict[str, Any]:
    declared = {column.name: column.type for column in node.spec.columns if column.type}
    # the name is in the ids of the rows
    return {"name": node.name, "columns": declared}


def _sql(node: Node, project: Project, facts: Facts) -> dict[str, Any]:
    return {"sql": KnownSql(node, project.findings).identity}


def _python(node: Node, project: Project, facts: Facts) -> dict[str, Any]:
    return {"code": facts.code[node.name]}


def _llm(node: Node, project: Project, facts: Facts) -> dict[str, Any]:
    spec: LlmSpec = node.spec
    values = _asked(project, facts, spec.prompt, spec.llm, spec.params)
    values["output"] = _output(spec.output)
    values["constrain"] = _is_constrained(project, facts, spec.llm, spec.output)
    if spec.on_error is not None and spec.on_error != _ON_ERROR[node.kind]:
        values["on_error"] = spec.on_error
    for key in ("where", "accept"):
        text = getattr(spec, key, None)
        if text:
            values[key] = parse_predicate(text, node.places.get(key, node.where)).identity
    return values


def _output(output: OutputSpec) -> dict[str, Any]:
    """What a reply becomes: without what is said about it, and without `constrain`, which is counted resolved."""
    given = output.model_dump(mode="json", exclude_defaults=True, exclude={"constrain"})
    columns = {
        name: {key: value for key, value in column.items() if key != "description"}
        for name, column in given["columns"].items()
    }
    return given | {"columns": columns}


def _is_constrained(project: Project, facts: Facts, llm: str, output: OutputSpec) -> bool:
    """Whether the schema is sent: the model says, else the connection, else what it is by itself."""
    for declared in (output.constrain, project.target.llms[llm].constrain):
        if declared is not None:
            return declared
    return facts.llms[llm].constrains


def _asked(project: Project, facts: Facts, prompt: str, llm: str, params: Mapping[str, Any]) -> dict[str, Any]:
    template = project.prompts[prompt]
    merged = {**project.target.llms[llm].params, **template.front.params, **params}
    return {
        f"prompt:{prompt}": template.identity,
        "variables": {name: project.variables.get(name) for name in sorted(template.variables)},
        "llm.model": dict(facts.llms[llm].identity),
        "params": {key: value for key, value in merged.items() if value is not None},
    }


def _filter(node: Node, project: Project, facts: Facts) -> dict[str, Any]:
    values: dict[str, Any] = {}
    rules = []
    for number, rule in enumerate(node.spec.rules):
        declared = rule.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        place = node.places.get(f"rules.{number}", node.where)
        if rule.sql:
            declared["sql"] = parse_predicate(rule.sql, place).identity
        if rule.dedup and rule.dedup.keep:
            declared["dedup"]["keep"] = check_order(rule.dedup.keep, place)
        if rule.judge:
            judge = rule.judge
            asked = _asked(project, facts, judge.prompt, judge.llm, judge.params)
            values.update({f"rules.{rule.name}.{key}": value for key, value in asked.items()})
            declared["judge"] = {
                "output": _output(judge.output),
                "constrain": _is_constrained(project, facts, judge.llm, judge.output),
                "accept": parse_predicate(judge.accept, place).identity,
            }
        rules.append(declared)
    return values | {"rules": rules}


def _mix(node: Node, project: Project, facts: Facts) -> dict[str, Any]:
    values: dict[str, Any] = {"inputs": [entry.model_dump(mode="json") for entry in node.spec.from_]}
    if node.spec.text:
        template = project.row_template(node.spec.text, node.places.get("text", node.where))
        values["text"] = template.identity
        if template.variables:
            values["variables"] = {name: project.variables.get(name) for name in sorted(template.variables)}
    if node.spec.tokens:
        values["tokenizer"] = facts.weights[node.spec.tokenizer]
    return values


def _train(node: Node, project: Project, facts: Facts) -> dict[str, Any]:
    names = [name for name in (node.spec.base, node.spec.tokenizer) if isinstance(name, str)]
    return {f"weights:{name}": facts.weights[name] for name in names if name in facts.weights}


def _evaluate(node: Node, project: Project, facts: Facts) -> dict[str, Any]:
    values: dict[str, Any] = {"benchmarks": [_benchmark(node, entry) for entry in node.spec.from_]}
    values |= {f"weights:{name}": facts.weights[name] for name in node.spec.models.values() if name in facts.weights}
    if node.spec.prompt:
        template = project.prompts[node.spec.prompt]
        values[f"prompt:{node.spec.prompt}"] = template.identity
        values["variables"] = {name: project.variables.get(name) for name in sorted(template.variables)}
    return values


def _benchmark(node: Node, entry: BenchmarkSpec) -> dict[str, Any]:
    given = entry.model_dump(mode="json")
    if entry.where:
        given["where"] = parse_predicate(entry.where, node.where).identity
    return given


_KINDS: dict[str, Callable[[Node, Project, Facts], dict[str, Any]]] = {
    "source": _source,
    "sql": _sql,
    "python": _python,
    "synthesize": _llm,
    "refine": _llm,
    "annotate": _llm,
    "filter": _filter,
    "mix": _mix,
    "train": _train,
    "evaluate": _evaluate,
}


def _places(node: Node, project: Project, components: Mapping[str, Digest]) -> dict[str, Where]:
    places: dict[str, Where] = {}
    for name in components:
        if ":" in name and "prompt:" in name:
            prompt = project.prompts.get(name.split("prompt:", 1)[1])
            places[name] = Where(prompt.path) if prompt else node.where
        elif name == "sql":
            places[name] = Where(node.path)
        else:
            places[name] = node.places.get(name, node.places.get(name.split(".")[0], node.where))
    return places
