"""The Jinja environment of every template: sandboxed, strict about what is undefined, bounded, and deterministic.

A template is part of the project and may come from a stranger's pull request: it reaches no attribute of Python's
inside, cannot change what it is given, and cannot ask for gigabytes by one small expression.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEXT = 10_000_000
"""Characters in one intermediate text."""
MAX_DIGITS = 4_000

# What a template can raise beside Jinja's own errors; anything else is a bug of bqbuild and must not look like theirs.
TEMPLATE_FAILURES = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)

# Filters that would turn NULL into the text "None".
_TEXT_FILTERS = (
    *("capitalize", "center", "e", "escape", "forceescape", "format", "indent", "join", "lower", "pprint", "replace"),
    *("reverse", "safe", "string", "striptags", "title", "trim", "truncate", "upper", "urlencode", "urlize"),
    *("wordcount", "wordwrap", "xmlattr"),
)
_RANDOM = ("lipsum", "random")
_PART = "_bq_part"


class NullPrintedError(TemplateError):
    """NULL was about to become text."""


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """See the module. `null_is_error` is for templates over rows: NULL is never printed as "None"."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self, *, null_is_error: bool, **options: Any) -> None:
        self.null_is_error = null_is_error
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            cache_size=-1,
            extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"],
            finalize=_refuse_null if null_is_error else _empty_for_null,
            **options,
        )
        for name in _RANDOM:  # the same row must make the same request
            self.globals.pop(name, None)
            self.filters.pop(name, None)
        self.filters["tojson"] = _to_json
        self.filters["fromjson"] = json.loads
        self.filters[_PART] = _refuse_null if null_is_error else _empty_for_null
        if null_is_error:
            for name in _TEXT_FILTERS:
                self.filters[name] = _without_null(self.filters[name])
            self.filters["default"] = self.filters["d"] = _default
        for name in ("center", "indent", "format"):
            self.filters[name] = _bounded(self.filters[name])

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        if "if" in source or "~" in source:  # looking is slow beside parsing
            self._prepare(tree)
        return tree

    def _prepare(self, tree: nodes.Template) -> None:
        """Give `a if b` the empty text as its other half, and look at what `~` puts together."""
        for choice in tree.find_all(nodes.CondExpr):
            if choice.expr2 is None:
                choice.expr2 = nodes.Const("", lineno=choice.lineno)
        for concat in tree.find_all(nodes.Concat):
            concat.nodes = [
                part
                if isinstance(part, nodes.Const)
                else nodes.Filter(part, _PART, [], [], None, None, lineno=part.lineno)
                for part in concat.nodes
            ]
        tree.set_environment(self)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`*`, `**`, `%` and `+`, within bounds."""
        if operator == "*":
            _check_product(left, right)
        elif operator == "**":
            _check_power(left, right)
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
            if self.null_is_error and (right is None or (isinstance(right, tuple) and None in right)):
                raise NullPrintedError("NULL is printed by %")
        elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            _check_length(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Calls, with methods of text kept from making gigabytes, or the text "None"."""
        owner = getattr(function, "__self__", None)
        if isinstance(owner, str):
            _check_method(owner, function.__name__, args)
        return super().call(context, function, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`'…'.format`, which Jinja makes safe, with its widths and NULLs looked at."""
        safe = super().wrap_str_format(value)
        if safe is None:
            return None

        def checked(*args: Any, **kwargs: Any) -> str:
            _check_format(value.__self__)
            if self.null_is_error and None in (*args, *kwargs.values()):
                raise NullPrintedError("NULL is printed by format()")
            return safe(*args, **kwargs)

        return checked


def _refuse_null(value: Any) -> Any:
    """What is printed in a template over rows."""
    if value is None:
        raise NullPrintedError("NULL is printed")
    if isinstance(value, str):
        _check_length(len(value))
    return value


def _empty_for_null(value: Any) -> Any:
    """What is printed elsewhere: in SQL, macros often return nothing."""
    if isinstance(value, str):
        _check_length(len(value))
    return "" if value is None else value


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    """Jinja's `default`, for NULL too."""
    is_missing = value is None or isinstance(value, Undefined)
    return default_value if is_missing or (boolean and not value) else value


def _without_null(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, refusing NULL; `join` refuses it among the items, `format` among what it puts in."""
    is_join = function.__name__.endswith("do_join")
    is_format = function.__name__ == "do_format"
    position = 1 if hasattr(function, "jinja_pass_arg") else 0

    def checked(*args: Any, **kwargs: Any) -> Any:
        value = args[position] if len(args) > position else None
        if value is None or (is_format and None in (*args, *kwargs.values())):
            raise NullPrintedError("NULL is printed")
        if is_join and isinstance(value, list | tuple) and None in value and not (kwargs or len(args) > position + 2):
            raise NullPrintedError("NULL is printed by join")
        return function(*args, **kwargs)

    return _like(function, checked)


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, refusing widths that would make gigabytes."""

    def checked(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, int):
                _check_length(value)
            elif isinstance(value, str):
                _check_format(value)
        return function(*args, **kwargs)

    return _like(function, checked)


def _like(function: Callable[..., Any], wrapper: Callable[..., Any]) -> Callable[..., Any]:
    """`wrapper` with the marks that tell Jinja what to pass first."""
    passed = getattr(function, "jinja_pass_arg", None)
    if passed is not None:
        wrapper.jinja_pass_arg = passed  # type: ignore[attr-defined]  # Jinja's own way to mark functions
    return wrapper


def _to_json(value: Any, indent: int | None = None) -> str:
    """JSON as it is, not escaped for HTML as Jinja's own filter does."""
    return json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=isinstance(value, Mapping))


def _check_length(length: int) -> None:
    if length > MAX_TEXT:
        raise SecurityError(f"a text of {length} characters is too long (at most {MAX_TEXT})")


def _check_product(left: Any, right: Any) -> None:
    for sequence, count in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(count, int):
            _check_length(len(sequence) * max(count, 0))
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_DIGITS * 4:
        raise SecurityError("a number is too large")


def _check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > MAX_DIGITS * 4:
        raise SecurityError("a number is too large")


def _check_format(pattern: str) -> None:
    """Widths in `%5000000000d` and `{:5000000000}`."""
    digits = 0
    for character in pattern if "%" in pattern or "{" in pattern else "":
        digits = digits + 1 if character.isdigit() else 0
        if digits > len(str(MAX_TEXT)) - 1:
            raise SecurityError("a width in a format is too large")


def _check_method(owner: str, name: str, args: tuple[Any, ...]) -> None:
    if name in ("ljust", "rjust", "center", "zfill", "expandtabs"):
        for value in args:
            if isinstance(value, int):
                _check_length(value * (owner.count("\t") or 1))
    elif name == "replace" and len(args) >= 2 and all(isinstance(value, str) for value in args[:2]):
        _check_length(len(owner) + (owner.count(args[0]) if args[0] else len(owner) + 1) * len(args[1]))
    elif name == "join" and args and isinstance(args[0], list | tuple):
        _check_length(len(owner) * len(args[0]))
