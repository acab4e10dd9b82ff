"""Which names a template takes from outside, by Jinja's own rules of scope.

Jinja knows, but only while it generates code, which takes most of the time of reading a prompt. Templates made of
text, values, `if` and `for` are nearly all, and their scopes are simple: those are walked here.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame

from bqbuild.config.sandbox import TemplateEnvironment

_SIMPLE = (nodes.Output, nodes.If, nodes.For, nodes.TemplateData, nodes.ExprStmt, nodes.Continue, nodes.Break)


def names_from_outside(tree: nodes.Template, environment: TemplateEnvironment, name: str) -> set[str]:
    """The names that are read and not made by the template itself. Raises TemplateSyntaxError for what cannot run."""
    if all(isinstance(each, _SIMPLE) for each in tree.find_all(nodes.Stmt)):
        found: set[str] = set()
        _walk(tree.body, frozenset(), found)
        return found
    generator = _Generator(environment, name)
    generator.visit(tree)
    return generator.outside


def _walk(items: Iterable[nodes.Node], bound: frozenset[str], found: set[str]) -> None:
    for node in items:
        if isinstance(node, nodes.Name):
            if node.name not in bound:
                found.add(node.name)
        elif isinstance(node, nodes.For):
            made = {name.name for name in [node.target, *node.target.find_all(nodes.Name)] if hasattr(name, "name")}
            inner = bound | made
            _walk([node.iter, *node.else_], bound, found)
            _walk([node.test] if node.test else [], inner, found)
            _walk(node.body, inner | {"loop"}, found)
        else:
            _walk(node.iter_child_nodes(), bound, found)


class _Generator(CodeGenerator):
    """Generates the code of a template for the sake of the names that it resolves outside."""

    def __init__(self, environment: TemplateEnvironment, name: str) -> None:
        super().__init__(environment, name, name, StringIO(), False, True)
        self.outside: set[str] = set()

    def enter_frame(self, frame: Frame) -> None:
        super().enter_frame(frame)
        for action, name in frame.symbols.loads.values():
            if action == "resolve" and isinstance(name, str):
                self.outside.add(name)
