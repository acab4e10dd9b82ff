"""Which nodes cost something: calls, or hours of training."""

from __future__ import annotations

from bqbuild.core.records import Node


def connections_of(node: Node) -> set[str]:
    """The connections that a node's calls go to."""
    if node.kind in ("synthesize", "refine", "annotate"):
        return {node.spec.llm}
    if node.kind == "filter":
        return {rule.judge.llm for rule in node.spec.rules if rule.judge is not None}
    return set()


def is_paid(node: Node) -> bool:
    """Whether building a node calls LLMs or trains: what a run must not start unasked."""
    return bool(connections_of(node)) or node.kind in ("train", "evaluate")
