"""The Jinja environment of every template: sandboxed, strict about what is undefined, bounded, and deterministic.

A template is part of the project and may come from a stranger's pull request: it reaches no attribute of Python's
inside, cannot change what it is given, and cannot ask for gigabytes by one small expression.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEXT = 10_000_000
"""Characters in one intermediate text."""
MAX_DIGITS = 4_000
MAX_STEPS = 1_000_000
"""Numbers that `range()` hands out in one rendering."""

# What a template can raise beside Jinja's own errors; anything else is a bug of bqbuild and must not look like the user's.
TEMPLATE_FAILURES = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)

# Filters that would turn NULL into the text "None".
_TEXT_FILTERS = (
    "capitalize center e escape forceescape format indent join lower replace reverse safe string striptags title trim"
    " truncate upper urlencode urlize wordcount wordwrap xmlattr pprint"
).split()
_RANDOM = ("random",)


class NullPrinted(TemplateError):
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
        for name in ("lipsum",):
            del self.globals[name]
        for name in _RANDOM:
            del self.filters[name]
        self.filters["tojson"] = _to_json
        self.filters["fromjson"] = json.loads
        for name in ("center", "indent", "format"):
            self.filters[name] = _bounded(self.filters[name])
        if null_is_error:
            for name in _TEXT_FILTERS:
                self.filters[name] = _without_null(self.filters[name])

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        self.prepare(tree)
        return tree

    def prepare(self, tree: nodes.Template) -> None:
        """Give `a if b` the empty text as its other half, and let `~` see NULL."""
        for choice in tree.find_all(nodes.CondExpr):
            if choice.expr2 is None:
                choice.expr2 = nodes.Const("", lineno=choice.lineno)
        if not self.null_is_error:
            return
        for concat in tree.find_all(nodes.Concat):
            concat.nodes = [
                nodes.Filter(part, "string", [], [], None, None, lineno=part.lineno)
                if not isinstance(part, nodes.Const)
                else part
                for part in concat.nodes
            ]
        for each in tree.find_all((nodes.Filter, nodes.Concat, nodes.Const)):
            each.set_environment(self)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`*`, `**`, `%` and `+`, within bounds."""
        if operator == "*":
            _check_product(left, right)
        elif operator == "**":
            _check_power(left, right)
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
            if self.null_is_error and (right is None or (isinstance(right, tuple) and None in right)):
                raise NullPrinted("NULL is printed by %")
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            _check_length(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 (as in Jinja)
        """Calls, with methods of text kept from making gigabytes."""
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and not isinstance(__obj, Macro):
            _check_method(owner, __obj.__name__, args)
            if __self.null_is_error and __obj.__name__ in ("format", "join"):
                values = list(args[0]) if __obj.__name__ == "join" and args else [*args, *kwargs.values()]
                if None in values:
                    raise NullPrinted(f"NULL is printed by {__obj.__name__}()")
        return super().call(__context, __obj, *args, **kwargs)


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise NullPrinted("NULL is printed")
    return value


def _empty_for_null(value: Any) -> Any:
    return "" if value is None else value


def _without_null(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, refusing NULL; `join` refuses it among the items."""
    is_join = function.__name__.endswith("do_join")
    position = 1 if hasattr(function, "jinja_pass_arg") else 0

    def checked(*args: Any, **kwargs: Any) -> Any:
        value = args[position] if len(args) > position else None
        if value is None:
            raise NullPrinted("NULL is printed")
        if is_join and isinstance(value, list | tuple) and None in value and not (kwargs or len(args) > position + 2):
            raise NullPrinted("NULL is printed by join")
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
    if name in ("format", "format_map"):
        _check_format(owner)
    elif name in ("ljust", "rjust", "center", "zfill", "expandtabs"):
        for value in args:
            if isinstance(value, int):
                _check_length(value * (owner.count("\t") or 1))
    elif name == "replace" and len(args) >= 2 and all(isinstance(value, str) for value in args[:2]):
        _check_length(len(owner) + (owner.count(args[0]) if args[0] else len(owner) + 1) * len(args[1]))
    elif name == "join" and args and isinstance(args[0], list | tuple):
        _check_length(len(owner) * len(args[0]))
