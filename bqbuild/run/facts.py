"""What planning must know of the world: who the LLMs are, which weights and code there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bqbuild.config.project import Project
from bqbuild.core.errors import ProjectError
from bqbuild.core.records import Node, NodeName
from bqbuild.graph.parts import CodeTexts
from bqbuild.graph.python_code import code_texts
from bqbuild.graph.recipe import Facts, LlmFact
from bqbuild.llm import PROVIDERS, provider_kind
from bqbuild.nodes import SEMANTICS
from bqbuild.run.paid import connections_of
from bqbuild.run.world import World, look_at_world, package_version


def gather_facts(project: Project, nodes: Iterable[Node]) -> Facts:
    """The facts that the recipes of `nodes` need. An LLM or model that is not there is known by its name only:
    planning goes on, and building the node says what is missing."""
    nodes = list(nodes)
    return Facts(
        semantics=SEMANTICS,
        llms={name: _llm_fact(project, name) for name in sorted(_connections(nodes))},
        weights={name: _weights(name) for name in sorted(_weight_names(project, nodes))},
        code={node.name: _code(project, node) for node in nodes if node.kind == "python"},
    )


def code_texts_of(project: Project, node: Node, facts: Facts) -> CodeTexts:
    """Where the code of a Python model stands, and its text, for explanations."""
    if node.kind != "python":
        return {}
    from bqbuild.nodes.python_modules import read_code

    return code_texts(read_code(project.root / "models"), facts.code[node.name]["code"]["reached"])


def world_of(project: Project) -> World | None:
    """What the recipes of all nodes count that is in no file; None where a provider from outside says what counts."""
    nodes = list(project.nodes.values())
    connections = [project.target.llms[name] for name in _connections(nodes)]
    if any(connection.provider not in PROVIDERS for connection in connections):
        return None
    weights = {(each.model, each.revision) for each in connections if each.provider == "embedded"}
    weights |= {(name, None) for name in _weight_names(project, nodes)}
    packages = {package for node in nodes if node.kind == "python" for package in node.spec.packages}
    return look_at_world(weights, packages)


def _connections(nodes: Iterable[Node]) -> set[str]:
    return {name for node in nodes for name in connections_of(node)}


def _llm_fact(project: Project, name: str) -> LlmFact:
    connection = project.target.llms[name]
    kind = provider_kind(connection.provider)
    try:
        identity = kind.identity(connection)
    except ProjectError:
        identity = {"model": connection.model, "missing": True}
    return LlmFact(identity, kind.constrains(connection))


def _weight_names(project: Project, nodes: Iterable[Node]) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        if node.kind == "mix" and node.spec.tokens:
            names.add(node.spec.tokenizer)
        elif node.kind == "train":
            names |= {name for name in (node.spec.base, node.spec.tokenizer) if isinstance(name, str)}
        elif node.kind == "evaluate":
            names |= set(node.spec.models.values())
    return {name for name in names if NodeName(name) not in project.nodes}


def _weights(name: str) -> Mapping[str, Any]:
    from bqbuild.llm.weights import (
        weights_identity,  # imports nothing heavy, but only these nodes need it
    )

    try:
        return weights_identity(name)
    except ProjectError:
        return {"model": name, "missing": True}


def _code(project: Project, node: Node) -> dict[str, Any]:
    from bqbuild.nodes.python import code_of

    versions = {package: package_version(package) for package in node.spec.packages}
    return {"code": code_of(project, node), "packages": versions}
