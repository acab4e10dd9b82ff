"""What counts of the code of a Python model: its function, and what that reaches in the project (rule C11). Pure.

Followed are names: from the function to the statements of its module that bind them, and through imports into other
modules of the project, with what importing these does besides. Comments, layout and positions don't count, docstrings
only where code reads them; what is not reached doesn't either. Where code looks names up by itself (`globals()`,
`eval`, `importlib` …) everything counts that it could find.
"""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from bqbuild.core.errors import ProjectError, Where, did_you_mean
from bqbuild.graph.python_module import DEFINITIONS, Import, Module, is_text

Files = Mapping[str, str]
"""The text of every Python file of the project, by its path relative to `models/`."""

_LOOKS_UP_NAMES = frozenset({"globals", "eval", "exec", "vars", "__import__", "importlib", "runpy"})
_READS_TEXT = frozenset({"__doc__", "getdoc", "inspect"})
_HOOKS = ("__init_subclass__", "__set_name__", "metaclass")
_NO_MEANING = frozenset({"type_comment", "kind", "ctx"})

_PARSING = threading.Lock()
"""Python 3.11 makes syntax trees for one thread at a time only: with two it raises SystemError (CPython 106905)."""


def code_identity(files: Files, path: str, function: str, where: Where | None = None) -> dict[str, Any]:
    """The canonical form, as JSON, of `function` in the file `path` and of all that it reaches.

    Raises ProjectError where the file or the function is not there, or a reached file is not Python.
    """
    walk = _Walk(files, where)
    if path not in files:
        hint = did_you_mean(path, files)
        raise ProjectError(f"there is no file models/{path}", where=where, hint=hint)
    module = walk.module(path)
    if function not in module.bindings:
        raise ProjectError(
            f"models/{path} has no function `{function}`", where=where, hint=did_you_mean(function, module.bindings)
        )
    walk.reach(path, function)
    return {"function": function, "file": path, "reached": walk.reached()}


def code_texts(files: Files, reached: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
    """The line and the text of everything that `code_identity` found to be reached, by `file:name`."""
    found = {}
    for path, names in reached.items():
        module = _module(files, path)
        for name in names:
            statements = module.bindings.get(name, []) if name else module.effects
            texts = [ast.get_source_segment(files[path], each) or "" for each in statements]
            found[f"{path}:{name}"] = (min((each.lineno for each in statements), default=1), "\n".join(texts))
    return found


def function_place(spec: str) -> tuple[str, str]:
    """The file, relative to `models/`, and the name that a spec's `function: file:name` means. Raises ValueError."""
    path, separator, name = spec.rpartition(":")
    if not separator or not path or not name.isidentifier():
        raise ValueError(f"`{spec}` is not of the form file:function")
    path = str(PurePosixPath(path.removeprefix("models/")))
    return (path if path.endswith(".py") else f"{path}.py"), name


def resolve_import(files: Files, path: str, module: str, level: int) -> str | None:
    """The project file that an import in the file `path` means, or None where it is somebody else's module.

    Relative imports start at the file's folder. Others are looked for there, and then below `models/`.
    """
    folder = PurePosixPath(path).parent
    parts = module.split(".") if module else []
    if level:
        for _ in range(level - 1):
            folder = folder.parent
        starts = [folder]
    else:
        starts = [folder, PurePosixPath(".")]
    for start in starts:
        base = start.joinpath(*parts)
        for candidate in (f"{base}.py", str(base / "__init__.py")):
            if candidate in files and parts:
                return candidate
    return None


def _parsed(text: str, path: str) -> ast.Module:
    with _PARSING:
        return ast.parse(text, filename=path)


def _module(files: Files, path: str) -> Module:
    """One file, parsed. Raises SyntaxError and ValueError."""
    hooks = any(hook in text for text in files.values() for hook in _HOOKS)
    return Module(_parsed(files[path], path), lambda node: bool(list(_targets(files, path, node))), hooks=hooks)


def _targets(files: Files, path: str, node: Import) -> Iterator[str]:
    """The files of the project that an import carries out."""
    if isinstance(node, ast.Import):
        names = [(alias.name, 0) for alias in node.names]
    else:
        base = node.module or ""
        inner = [f"{base}.{alias.name}" if base else alias.name for alias in node.names]
        names = [(name, node.level) for name in (base, *inner)]
    for name, level in names:
        target = resolve_import(files, path, name, level)
        if target is not None:
            yield target


class _Walk:
    """Everything reached so far: pairs of a file and a name, "" for what a module does when it is imported."""

    def __init__(self, files: Files, where: Where | None) -> None:
        self._files = files
        self._where = where
        self._modules: dict[str, Module] = {}
        self._reached: dict[tuple[str, str], list[ast.stmt]] = {}

    def module(self, path: str) -> Module:
        if path not in self._modules:
            try:
                self._modules[path] = _module(self._files, path)
            except (SyntaxError, ValueError) as error:
                line = getattr(error, "lineno", 0) or 0
                place = Where(f"models/{path}", line, getattr(error, "offset", 0) or 0)
                raise ProjectError(f"this is not Python: {getattr(error, 'msg', error)}", where=place) from error
        return self._modules[path]

    def reach(self, path: str, name: str) -> None:
        """Add the name of a module, and everything that its statements name."""
        todo = [(path, ""), (path, name)]
        while todo:
            place = todo.pop()
            if place in self._reached:
                continue
            module = self.module(place[0])
            statements = module.bindings.get(place[1], []) if place[1] else module.effects
            self._reached[place] = statements
            if not place[1]:
                todo.extend((target, "") for node in module.imports for target in _targets(self._files, place[0], node))
            for statement in statements:
                todo.extend(self._named(place[0], statement))

    def reached(self) -> dict[str, dict[str, list[Any]]]:
        keep_text = any(_reads_text(statement) for statements in self._reached.values() for statement in statements)
        found: dict[str, dict[str, list[Any]]] = {}
        for (path, name), statements in sorted(self._reached.items(), key=lambda item: item[0]):
            text = self.module(path).tree.body[:1] if keep_text and not name else []
            counted = [*filter(is_text, text), *statements]
            if counted:
                found.setdefault(path, {})[name] = [canonical_ast(each, keep_text=keep_text) for each in counted]
        return found

    def _named(self, path: str, statement: ast.stmt) -> Iterator[tuple[str, str]]:
        """The places that a statement names."""
        module = self.module(path)
        followed: set[int] = set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and (found := self._attribute(path, module, node)):
                followed.add(id(node.value))
                yield from found
            elif isinstance(node, ast.Name):
                if node.id in module.bindings and id(node) not in followed:
                    yield path, node.id
                if node.id in _LOOKS_UP_NAMES:
                    yield from self._everything(path)
            elif isinstance(node, ast.Global):
                yield from ((path, name) for name in node.names if name in module.bindings)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._import(path, alias.name, 0)
            elif isinstance(node, ast.ImportFrom):
                yield from self._import_from(path, node)

    def _attribute(self, path: str, module: Module, node: ast.Attribute) -> list[tuple[str, str]]:
        """The places of `helpers.weigh`, where `helpers` can be nothing but that file of the project."""
        owner = node.value
        imported = module.module_named(owner.id) if isinstance(owner, ast.Name) else None
        if imported is None or not isinstance(node.ctx, ast.Load) or len(imported.names) != 1:
            return []
        alias = imported.names[0]
        if isinstance(imported, ast.Import):
            is_dotted = "." in alias.name and not alias.asname
            target = None if is_dotted else resolve_import(self._files, path, alias.name, 0)
        else:
            base = resolve_import(self._files, path, imported.module or "", imported.level)
            inner = f"{imported.module}.{alias.name}" if imported.module else alias.name
            target = None if base else resolve_import(self._files, path, inner, imported.level)
        if target is None or node.attr not in self.module(target).bindings:
            return []
        return [(target, ""), (target, node.attr)]

    def _import(self, path: str, name: str, level: int) -> Iterator[tuple[str, str]]:
        """`import a.b` may use anything of the module."""
        target = resolve_import(self._files, path, name, level)
        if target is not None:
            yield target, ""
            yield from ((target, bound) for bound in self.module(target).bindings)
        if name in _LOOKS_UP_NAMES:
            yield from self._everything(path)

    def _import_from(self, path: str, node: ast.ImportFrom) -> Iterator[tuple[str, str]]:
        base = node.module or ""
        target = resolve_import(self._files, path, base, node.level)
        for alias in node.names:
            inner = resolve_import(self._files, path, f"{base}.{alias.name}" if base else alias.name, node.level)
            if target is not None and alias.name in self.module(target).bindings:
                yield target, ""
                yield target, alias.name
            elif alias.name == "*" and target is not None:
                yield from self._import(path, base, node.level)
            elif inner is not None:
                yield inner, ""
                yield from ((inner, bound) for bound in self.module(inner).bindings)
            elif target is not None:  # handed on by an `import *`, or made by a `__getattr__`
                yield from self._import(path, base, node.level)
        if base in _LOOKS_UP_NAMES:
            yield from self._everything(path)

    def _everything(self, path: str) -> Iterator[tuple[str, str]]:
        """For code that finds names at run time: the whole module, and all modules if it may import by name."""
        for other in sorted(self._files):
            yield other, ""
            yield from ((other, name) for name in self.module(other).bindings)


def _reads_text(statement: ast.stmt) -> bool:
    """Whether code may read docstrings."""
    names = {getattr(node, "id", None) or getattr(node, "attr", None) for node in ast.walk(statement)}
    imported = {alias.name for node in ast.walk(statement) if isinstance(node, Import) for alias in node.names}
    return bool((names | imported) & _READS_TEXT)


def canonical_ast(node: object, *, keep_text: bool = False) -> Any:
    """A syntax tree as JSON: no positions, no docstrings unless they are to be kept, and no empty fields, so that no
    release of Python shows in it."""
    if isinstance(node, ast.Constant):
        return _constant(node.value)
    if isinstance(node, ast.AST):
        fields = {name: value for name, value in ast.iter_fields(node) if name not in _NO_MEANING}
        if isinstance(node, (*DEFINITIONS, ast.Module)) and not keep_text:
            fields["body"] = [item for item in fields["body"] if not is_text(item)]
        given = {
            name: canonical_ast(value, keep_text=keep_text)
            for name, value in fields.items()
            if value is not None and value != []
        }
        return [type(node).__name__, given]
    if isinstance(node, list):
        return [canonical_ast(item, keep_text=keep_text) for item in node]
    return node


def _constant(value: object) -> Any:
    """A literal with its type: 1, 1.0, True and "1" are four values."""
    match value:
        case None | bool():
            return ["Constant", value]
        case str() | int() | float():
            return ["Constant", type(value).__name__, value if isinstance(value, str) else repr(value)]
        case bytes():
            return ["Constant", "bytes", value.hex()]
        case tuple():
            return ["Constant", "tuple", [_constant(item) for item in value]]
        case frozenset():
            return ["Constant", "frozenset", sorted((_constant(item) for item in value), key=str)]
    return ["Constant", type(value).__name__, repr(value)]
