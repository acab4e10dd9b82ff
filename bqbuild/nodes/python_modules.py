"""Imports the Python files of a project, without leaving a trace in the process.

Files import each other by the rules of `graph.python_code.resolve_import`. Every load is a fresh one: a module's name
in `sys.modules` is its own, and gone when the build is over.
"""

from __future__ import annotations

import builtins
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

from bqbuild.core.errors import BuildError, Where
from bqbuild.graph.python_code import resolve_import


def read_code(models: Path) -> dict[str, str]:
    """The text of every Python file below `models/`, by relative path. Raises BuildError."""
    files = {}
    for path in sorted(models.rglob("*.py")):
        name = path.relative_to(models).as_posix()
        try:
            files[name] = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BuildError(f"the file cannot be read: {error}", where=Where(f"models/{name}")) from error
    return files


class ProjectModules:
    """The modules that one build imports; a context manager that forgets them at the end."""

    def __init__(self, models: Path, files: Mapping[str, str]) -> None:
        self._models = models
        self._files = files
        self._prefix = f"bqbuild_models_{uuid.uuid4().hex}"
        self._loaded: dict[str, ModuleType] = {}

    def __enter__(self) -> ProjectModules:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        for module in self._loaded.values():
            sys.modules.pop(module.__name__, None)

    def load(self, path: str) -> ModuleType:
        """Import one file; what its code raises passes through."""
        if path in self._loaded:
            return self._loaded[path]
        name = f"{self._prefix}.{path.removesuffix('.py').replace('/', '.')}"
        module = ModuleType(name)
        module.__file__ = str(self._models / path)
        # Import statements look `__import__` up in the builtins of the module that they stand in.
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._importer(path)}
        self._loaded[path] = sys.modules[name] = module
        code: CodeType = compile(self._files[path], module.__file__, "exec", dont_inherit=True)
        exec(code, module.__dict__)
        return module

    def _importer(self, path: str) -> Any:
        def import_module(
            name: str,
            globals: Mapping[str, object] | None = None,
            locals: Mapping[str, object] | None = None,
            fromlist: Sequence[str] | None = (),
            level: int = 0,
        ) -> ModuleType:
            target = resolve_import(self._files, path, name, level)
            if target is not None:
                module = self.load(target)
                return module if fromlist or level else self._package(name, module)
            inner = {part: self._inner(path, name, part, level) for part in fromlist or ()}
            if any(inner.values()):
                return self._folder(name, {part: found for part, found in inner.items() if found is not None})
            return builtins.__import__(name, globals, locals, fromlist or (), level)

        return import_module

    def _inner(self, path: str, name: str, part: str, level: int) -> ModuleType | None:
        """`from folder import file`."""
        target = resolve_import(self._files, path, f"{name}.{part}" if name else part, level)
        return self.load(target) if target is not None else None

    def _package(self, name: str, module: ModuleType) -> ModuleType:
        """What `import a.b` binds: something named `a` that has the module as its `b`."""
        for part in reversed(name.split(".")[1:]):
            module = self._folder(part, {part: module})
        return module

    def _folder(self, name: str, members: Mapping[str, ModuleType]) -> ModuleType:
        folder = ModuleType(f"{self._prefix}.{name or 'models'}")
        vars(folder).update(members)
        return folder


class UserCode:
    """A stretch in which code of the user's runs: whatever it raises becomes a BuildError at its file and line."""

    def __init__(self, models: Path, what: str) -> None:
        self._models = models
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, BuildError):
            text = str(error).strip().splitlines()
            message = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
            raise BuildError(f"{self._what} failed: {message}", where=self._place(error, at)) from error

    def _place(self, error: BaseException, at: TracebackType | None) -> Where | None:
        """The innermost line of the user's own code."""
        if isinstance(error, SyntaxError) and error.filename:
            return Where(self._shown(error.filename), error.lineno or 0, error.offset or 0)
        place = None
        while at is not None:
            filename = at.tb_frame.f_code.co_filename
            if filename.startswith(str(self._models)):
                place = Where(self._shown(filename), at.tb_lineno)
            at = at.tb_next
        return place

    def _shown(self, filename: str) -> str:
        return f"models/{Path(filename).relative_to(self._models).as_posix()}"
