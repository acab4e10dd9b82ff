"""Templates whose result is known when the project is read: values in YAML, and SQL.

A value that is exactly one `{{ expression }}` has the expression's value (a number, a list); any other is text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from jinja2 import TemplateSyntaxError, Undefined, nodes

from bqbuild.config.sandbox import TEMPLATE_FAILURES, TemplateEnvironment
from bqbuild.core.errors import ProjectError, Where, did_you_mean

Functions = Mapping[str, Callable[..., Any]]


class Renderer:
    """Renders texts with a fixed set of functions and values; macros may be added to `environment.globals`."""

    def __init__(self, functions: Functions, values: Mapping[str, Any] | None = None) -> None:
        self.environment = TemplateEnvironment(null_is_error=False, keep_trailing_newline=True)
        self.environment.globals.update(functions)
        self.environment.globals.update(values or {})
        self._functions = functions

    def value(self, text: str, where: Where) -> Any:
        """What `text` stands for. Raises ProjectError at the line that is wrong."""
        if "{{" not in text and "{%" not in text and "{#" not in text:
            return text
        tree = self._parse(text, where)
        parts = _parts(tree)
        if len(parts) != 1 or not isinstance(parts[0], nodes.Expr) or isinstance(parts[0], nodes.TemplateData):
            return self._render(tree, parts, where)
        simple = self._simple(parts[0])
        if simple is not None:
            return simple.result(where)
        return self._evaluate(parts[0], where)

    def text(self, source: str, where: Where) -> str:
        """`source` rendered; `where` is where it starts. Raises ProjectError at the line that is wrong."""
        tree = self._parse(source, where)
        return self._render(tree, _parts(tree), where)

    def _parse(self, source: str, where: Where) -> nodes.Template:
        try:
            return self.environment.parse(source, where.file, where.file)
        except TemplateSyntaxError as error:
            raise _syntax_error(error, where) from error
        except RecursionError as error:
            raise ProjectError("broken Jinja: nested too deeply", where=where) from error

    def _render(self, tree: nodes.Template, parts: list[nodes.Node], where: Where) -> str:
        simple = [self._simple(part) for part in parts]
        if None not in simple:
            values = [part.result(where) for part in simple if part]
            return "".join("" if value is None else str(value) for value in values)
        return self._run(tree, where)

    def _evaluate(self, expression: nodes.Expr, where: Where) -> Any:
        """The value of an expression: the template hands it to a function."""
        found: list[Any] = []
        take = nodes.Call(nodes.Name("_bq_take", "load"), [expression], [], None, None, lineno=expression.lineno)
        tree = nodes.Template([nodes.ExprStmt(take, lineno=expression.lineno)], lineno=1)
        tree.set_environment(self.environment)
        self._run(tree, where, _bq_take=found.append)
        try:
            return _plain(found[0])
        except TEMPLATE_FAILURES as error:
            raise template_failure(error, where, self.environment.globals) from error

    def _run(self, tree: nodes.Template, where: Where, **values: Any) -> str:
        environment = self.environment
        try:
            code = environment.compile(tree, where.file, where.file)
            template = environment.template_class.from_code(environment, code, environment.make_globals(None))
            return template.render(values)
        except TemplateSyntaxError as error:
            raise _syntax_error(error, where) from error
        except ProjectError as error:
            raise placed(error, _failed_at(error, where)) from error
        except TEMPLATE_FAILURES as error:
            raise template_failure(error, _failed_at(error, where), environment.globals) from error

    def _simple(self, part: nodes.Node) -> _Simple | None:
        """Text, or a call of a function with constants: nearly all SQL is that, and needs no compiling."""
        if isinstance(part, nodes.TemplateData):
            return _Simple(part.lineno, None, [part.data], {})
        if not isinstance(part, nodes.Call) or not isinstance(part.node, nodes.Name):
            return None
        function = self._functions.get(part.node.name)
        if function is None or part.dyn_args or part.dyn_kwargs:
            return None
        try:
            args = [arg.as_const() for arg in part.args]
            return _Simple(part.lineno, function, args, {each.key: each.value.as_const() for each in part.kwargs})
        except nodes.Impossible:
            return None


@dataclass(frozen=True, slots=True)
class _Simple:
    """A part of a template that needs no compiling; without a function it is the text of its only argument."""

    line: int
    function: Callable[..., Any] | None
    args: list[Any]
    kwargs: dict[str, Any]

    def result(self, where: Where) -> Any:
        if self.function is None:
            return self.args[0]
        try:
            return self.function(*self.args, **self.kwargs)
        except ProjectError as error:
            raise placed(error, line_of(where, self.line)) from error
        except TypeError as error:
            raise template_failure(error, line_of(where, self.line), {}) from error


def _plain(value: Any) -> Any:
    """A value as YAML could hold it. Raises TypeError, or what Jinja says of an undefined one."""
    if isinstance(value, Undefined):
        str(value)  # raises, with the name
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    raise TypeError(f"the expression gives a {type(value).__name__}, not a value")


def template_failure(error: BaseException, where: Where, known: Mapping[str, Any]) -> ProjectError:
    """The error of a template that failed while it ran."""
    text = str(error) or type(error).__name__
    name = text.split("'")[1] if "is undefined" in text and text.count("'") > 1 else ""
    public = [each for each in known if not each.startswith("_")]
    return ProjectError(f"Jinja failed: {text}", where=where, hint=did_you_mean(name, public) if name else None)


def placed(error: ProjectError, where: Where) -> ProjectError:
    """The error with a place, where it had none."""
    return error if error.where is not None else ProjectError(error.message, where=where, hint=error.hint)


def line_of(where: Where, line: int) -> Where:
    """The place of a template's line, where the template starts at `where`."""
    return where if line <= 1 else Where(where.file, max(where.line, 1) + line - 1)


def template_line(traceback: TracebackType | None) -> tuple[str, int] | None:
    """The innermost template's file and line in a traceback that Jinja rewrote."""
    found = None
    while traceback is not None:
        if "__jinja_exception__" in traceback.tb_frame.f_globals:
            found = (traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


def _failed_at(error: BaseException, where: Where) -> Where:
    found = template_line(error.__traceback__)
    if found is None:
        return where
    return line_of(where, found[1]) if found[0] == where.file else Where(*found)


def _syntax_error(error: TemplateSyntaxError, where: Where) -> ProjectError:
    return ProjectError(f"broken Jinja: {error.message}", where=line_of(where, error.lineno))


def _parts(tree: nodes.Template) -> list[nodes.Node]:
    """What a template puts out in order; statements stand for themselves."""
    return [part for each in tree.body for part in (each.nodes if isinstance(each, nodes.Output) else [each])]
