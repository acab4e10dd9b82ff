"""What changed in a definition, in words: parts of recipes compared with those of the build before. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bqbuild.core.errors import Where
from bqbuild.core.records import Part

SHOWN = 48
"""Characters of a value that a reason quotes; a longer one is only said to have changed."""

Parts = Mapping[str, Part]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a node runs, or does not: a code for programs, a sentence for people, and the place to look at."""

    code: str
    message: str
    where: Where | None = None


def changed_parts(component: str, now: Parts, before: Parts, place: Where | None) -> list[Reason]:
    """What changed inside of a component that did; empty where its parts do not tell."""
    reasons = list(_compared(component, now, before, place))
    # what SQL renders to, and in which order rules stand, is worth telling only where nothing else explains it
    return [reason for reason, is_last in reasons if not is_last] or [reason for reason, _ in reasons]


def shown_component(component: str) -> str:
    """A component in the user's words."""
    if "prompt:" in component:
        return f"prompt `{component.split('prompt:', 1)[1]}`"
    return {"llm.model": "the LLM", "sql": "the SQL", "code": "the code"}.get(component, f"`{component}`")


def part_names(component: str, *sides: Parts) -> list[str]:
    """The names of a component's parts on any side, in order."""
    found = dict.fromkeys(name for side in sides for name in side)
    return [name for name in found if name == component or name.startswith(f"{component}/")]


def shown_part(name: str) -> str:
    """A part in the user's words."""
    component, _, detail = name.partition("/")
    owner, _, last = component.rpartition(".")
    if "prompt:" in component:
        return _prompt_part(component.split("prompt:", 1)[1], detail)
    if component in ("sql", "code", "rules"):
        return _part_of_one_kind(component, detail)
    if component == "llm.model" or component.endswith(".llm.model"):
        last, owner = "llm.model", component.removesuffix("llm.model").rstrip(".")
    of_rule = f" of rule `{owner.removeprefix('rules.')}`" if owner else ""
    words = {
        "variables": f"variable `{detail}`",
        "llm.model": f"`{detail}` of the LLM{of_rule}",
        "params": f"`params.{detail}`{of_rule}",
    }
    return words.get(last, f"`{component}.{detail}`" if detail else f"`{component}`")


def first_change(now: str, before: str) -> int:
    """The index of the first line of `now` that is not as it was."""
    new, old = now.split("\n"), before.split("\n")
    for number, (line, earlier) in enumerate(zip(new, old, strict=False)):
        if line != earlier:
            return number
    return max(0, min(len(new), len(old) + 1) - 1)


def _compared(component: str, now: Parts, before: Parts, place: Where | None) -> Iterator[tuple[Reason, bool]]:
    for name in part_names(component, now, before):
        part, earlier = now.get(name), before.get(name)
        what = shown_part(name)
        is_last = name in ("sql/rendered", "rules/")
        if part is None:
            yield Reason("changed", f"{what} is gone", place), is_last
        elif earlier is None:
            is_told = not part.is_source and len(part.text) <= SHOWN and part.text not in ("", "{}")
            value = f": {part.text}" if is_told else ""
            yield Reason("changed", f"{what} is new{value}", part.where or place), is_last
        elif part.digest != earlier.digest:
            yield Reason("changed", f"{what} {_how(part, earlier)}", _line(part, earlier) or place), is_last


def _line(part: Part, earlier: Part) -> Where | None:
    """The place of a part: in a source text, its first line that changed."""
    where = part.where
    if where is None or not part.is_source or not (part.text and earlier.text) or not where.line:
        return where
    return Where(where.file, where.line + first_change(part.text, earlier.text))


def _how(part: Part, earlier: Part) -> str:
    if part.is_source or not part.text or not earlier.text:
        return "changed"
    new, old = json.loads(part.text), json.loads(earlier.text)
    if isinstance(new, list) and isinstance(old, list):
        parts = [f"gained {_quoted(item)}" for item in new if item not in old]
        parts += [f"lost {_quoted(item)}" for item in old if item not in new]
        text = ", ".join(parts) or "has its values in another order"
        return text if len(text) <= 2 * SHOWN else "changed"
    if len(part.text) > SHOWN or len(earlier.text) > SHOWN:
        return "changed"
    return f"changed from {earlier.text} to {part.text}"


def _quoted(item: Any) -> str:
    return f"`{item}`" if isinstance(item, str) else json.dumps(item, ensure_ascii=False)


def _part_of_one_kind(component: str, detail: str) -> str:
    """A part of what only SQL models, Python models or filters have."""
    kind, _, name = detail.partition(":")
    words = {
        ("sql", "macro"): f"macro `{name}`, which the SQL calls,",
        ("sql", "var"): f"variable `{name}`, which the SQL reads,",
        ("sql", "text"): "the SQL",
        ("sql", "rendered"): "what the SQL renders to",
        ("code", "package"): f"the version of package `{name}`",
        ("rules", ""): "the order of the rules",
    }
    other = {
        "code": f"the code of `{name}`" if name else f"what models/{kind} does when it is imported",
        "rules": f"rule `{detail}`",
    }
    return words.get((component, kind)) or other[component]


def _prompt_part(prompt: str, detail: str) -> str:
    kind, _, name = detail.partition(":")
    words = {
        "system": f"the system message of prompt `{prompt}`",
        "include": f"prompt `{name}`, which prompt `{prompt}` includes,",
        "macro": f"macro `{name}`, which prompt `{prompt}` calls,",
    }
    return words.get(kind, f"prompt `{prompt}`")
