"""One Python file of a project, parsed: which statements bind which names, and what importing it does besides. Pure.

Importing a file carries out more than what the names it is imported for stand for: decorators that register, calls,
changes of what other files made. Such statements are the file's *effects*, whatever is imported from it. A statement
that was carried out in vain costs a build; one that was overlooked leaves a stale table, so in doubt it is an effect.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterator

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_DEFERRED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_STORES = (ast.Store, ast.Del)

Import = ast.Import | ast.ImportFrom
IsOurs = Callable[[Import], bool]
"""Whether an import names a file of the project."""


class Module:
    """`bindings` are the statements that bind a name, `effects` those that count whatever is imported, `imports` the
    imports that are carried out with the file; with `hooks`, making a class may do anything."""

    def __init__(self, tree: ast.Module, is_ours: IsOurs, *, hooks: bool = False) -> None:
        self.tree = tree
        self.bindings: dict[str, list[ast.stmt]] = {}
        bound = [(statement, set(_bound(statement))) for statement in tree.body]
        for statement, names in bound:
            for name in names:
                self.bindings.setdefault(name, []).append(statement)
        executed = [node for statement in tree.body for node in _executed(statement)]
        self.imports = [node for node in executed if isinstance(node, Import)]
        self._hooks = hooks
        self._imported = {name for node in self.imports if is_ours(node) for name in _bound(node)}
        foreign = {name for node in self.imports if not is_ours(node) for name in _bound(node)}
        self._own = set(self.bindings) - foreign | self._imported
        self.effects = [
            statement
            for statement, names in bound
            # `import *` may bind any name
            if not is_text(statement) and (not names - {"*"} or self._acts(statement))
        ]

    def module_named(self, name: str) -> Import | None:
        """The import statement that alone gives a name its meaning."""
        statements = self.bindings.get(name, [])
        only = statements[0] if len(statements) == 1 else None
        return only if isinstance(only, Import) else None

    def _acts(self, statement: ast.stmt) -> bool:
        """Whether a statement that binds names may do something else as well."""
        return any(self._is_act(node) for node in _executed(statement))

    def _is_act(self, node: ast.AST) -> bool:
        match node:
            case ast.Call():
                return self._is_own(node.func)
            case ast.ClassDef() if self._hooks and any(self._is_own(base) for base in node.bases):
                return True
            case ast.Attribute() | ast.Subscript() if isinstance(node.ctx, _STORES):
                return _root(node) in self._imported
        return any(self._is_own(decorator) for decorator in getattr(node, "decorator_list", ()))

    def _is_own(self, called: ast.expr) -> bool:
        """Whether an expression may be code of the project: all that is not imported from elsewhere or built in."""
        name = _root(called)
        return name in self._own or (name not in self.bindings and not hasattr(builtins, name))


def is_text(statement: object) -> bool:
    """Whether a statement is nothing but a string: a docstring, or a comment in disguise."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _executed(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes that are carried out when the file is imported: all but what is inside functions."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, _DEFERRED):
            waiting += getattr(node, "decorator_list", [])
            waiting += [default for default in (*node.args.defaults, *node.args.kw_defaults) if default is not None]
        else:
            waiting += ast.iter_child_nodes(node)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds, or changes, in its module; compound statements bind what is in them."""
    if isinstance(statement, DEFINITIONS):
        yield statement.name
        return
    for node in ast.walk(statement):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Import() | ast.ImportFrom():
                yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
            case ast.Name() if isinstance(node.ctx, _STORES):
                yield node.id
            case ast.MatchAs() | ast.MatchStar() if node.name:
                yield node.name
            case ast.MatchMapping() if node.rest:
                yield node.rest
            case ast.Attribute() | ast.Subscript() if isinstance(node.ctx, _STORES):
                if name := _root(node):
                    yield name


def _root(node: ast.expr) -> str:
    """`a` of `a.b.c`, `a[0]` and `a(1)(2)`; nothing where it is no name."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
