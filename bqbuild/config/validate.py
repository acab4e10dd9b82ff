"""From a value to a typed spec, with every mistake told in the user's words, at its line and column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bqbuild.config.mistakes import Mistakes
from bqbuild.config.specs import Spec
from bqbuild.core.errors import Where, did_you_mean

SpecT = TypeVar("SpecT", bound=Spec)


class Places(Protocol):
    """Knows where each part of a value was written."""

    def where(self, path: Sequence[str | int]) -> Where:
        """The place of the entry at `path`."""

    def value_where(self, path: Sequence[str | int]) -> Where:
        """The place of the value at `path`."""

    def text_where(self, path: Sequence[str | int]) -> Where:
        """The place of the first line of the text at `path`."""


def validate(
    spec_class: type[SpecT],
    value: Any,
    places: Places,
    mistakes: Mistakes,
    path: Sequence[str | int] = (),
) -> SpecT | None:
    """`value` as a spec, or None with the mistakes noted. `path` is where the value stands in its file."""
    if not isinstance(value, dict):
        found = "is empty" if value is None else f"must be a mapping, not {_shown(value)}"
        mistakes.add(f"{_name(path) or 'the file'} {found}", places.value_where(path))
        return None
    try:
        return spec_class.model_validate(value)
    except ValidationError as error:
        for loc, details in _by_place(error, value):
            _note(spec_class, places, mistakes, (tuple(path), loc, details))
        return None


def keys_of(spec_class: type[BaseModel]) -> list[str]:
    """The keys as users write them."""
    return [field.alias or name for name, field in spec_class.model_fields.items()]


def _by_place(error: ValidationError, value: Any) -> list[tuple[tuple[str | int, ...], list[ErrorDetails]]]:
    """The details of an error by the place in `value`: the alternatives of a union stand at one place."""
    groups: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        loc = _real_path(details, value)
        groups.setdefault(loc, []).append(details)
    # where one branch of a union went deeper, "must be a mapping" of the other one says nothing
    return [
        (loc, details)
        for loc, details in groups.items()
        if not details[0]["type"].endswith("_type") or not any(loc == other[: len(loc)] != other for other in groups)
    ]


def _real_path(details: ErrorDetails, value: Any) -> tuple[str | int, ...]:
    """The part of pydantic's path that is in the value: names of union branches are not."""
    path: list[str | int] = []
    for number, step in enumerate(details["loc"]):
        is_last = number == len(details["loc"]) - 1
        if isinstance(value, dict) and isinstance(step, str) and (step in value or is_last):
            path.append(step)
            value = value.get(step)
        elif isinstance(value, dict) and isinstance(step, int):
            path.append(step)  # a mapping that was read as a list of named things
            value = list(value.values())[step] if step < len(value) else None
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            path.append(step)
            value = value[step]
    return tuple(path)


def _note(
    spec_class: type[Spec],
    places: Places,
    mistakes: Mistakes,
    found: tuple[tuple[str | int, ...], tuple[str | int, ...], list[ErrorDetails]],
) -> None:
    base, loc, details = found
    path = (*base, *loc)
    kind = details[0]["type"]
    name = _name(loc)
    if kind == "extra_forbidden":
        known = sorted({key for each in details for key in _known_keys(spec_class, each["loc"][:-1])})
        mistakes.add(
            f"unknown key '{loc[-1]}'", places.where(path), did_you_mean(str(loc[-1]), known) or _one_of(known)
        )
    elif kind == "missing":
        mistakes.add(f"missing key '{loc[-1]}'{_of(base, loc[:-1])}", places.where(path[:-1]))
    elif kind in ("value_error", "assertion_error"):
        mistakes.add(f"{f'`{name}`: ' if name else ''}{details[0]['ctx']['error']}", places.where(path))
    elif kind == "literal_error":
        allowed = _literals(spec_class, details[0]["loc"])
        message = f"`{name}` must be {_either(allowed) or details[0]['msg']}, not {_shown(details[0]['input'])}"
        mistakes.add(message, places.value_where(path), did_you_mean(str(details[0]["input"]), allowed))
    else:
        wanted = _either(list(dict.fromkeys(_wanted(each) for each in details)))
        mistakes.add(f"`{name}` must be {wanted}, not {_shown(details[0]['input'])}", places.value_where(path))


_WANTED: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "empty",
    "finite_number": "a finite number",
}


def _wanted(details: ErrorDetails) -> str:
    """What would have been right, in a few words."""
    kind, ctx = details["type"], details.get("ctx", {})
    if kind in _WANTED:
        return _WANTED[kind]
    for limit, words in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below")):
        if limit in ctx:
            return f"{words} {ctx[limit]}"
    if kind == "too_short":
        return f"at least {ctx['min_length']} long"
    if kind == "string_pattern_mismatch":
        return "letters, digits and `_`, not starting with a digit"
    return details["msg"].removeprefix("Input should be ").lower()


def _known_keys(spec_class: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    classes = [spec_class]
    for step in loc:
        if isinstance(step, int):
            continue
        inner = [
            found
            for each in classes
            for name, field in each.model_fields.items()
            if step in (name, field.alias)
            for found in _models(field.annotation)
        ]
        named = [each for each in classes if each.__name__ == step]
        classes = inner or named or classes
    return [key for each in classes for key in keys_of(each)]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The specs that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not None:
        for inner in get_args(annotation):
            yield from _models(inner)


def _literals(spec_class: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The allowed values of the field at `loc`."""
    names = [step for step in loc if isinstance(step, str)]
    classes: list[type[BaseModel]] = [spec_class]
    for number, step in enumerate(names):
        fields = [field for each in classes for name, field in each.model_fields.items() if step in (name, field.alias)]
        if number == len(names) - 1:
            return [value for field in fields for value in _literal_values(field.annotation)]
        classes = [found for field in fields for found in _models(field.annotation)] or classes
    return []


def _literal_values(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if get_origin(annotation) is Annotated:
        return _literal_values(get_args(annotation)[0])
    return [value for inner in get_args(annotation) for value in _literal_values(inner)]


def _name(path: Sequence[str | int]) -> str:
    """`rules.0.dedup` for a path."""
    return ".".join(str(step) for step in path)


def _of(base: Sequence[str | int], loc: Sequence[str | int]) -> str:
    return f" in `{_name(loc)}`" if loc else ""


def _either(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _one_of(known: Sequence[str]) -> str | None:
    return f"known keys: {', '.join(known)}" if known else None


def _shown(value: Any) -> str:
    """A value as the user knows it, short."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = str(value)
    return f"'{text[:60]}…'" if len(text) > 60 else f"'{text}'"
