"""Prompt files: front matter, then messages in Markdown and Jinja.

A line `system:`, `user:` or `assistant:` of the file starts a message; a file without one is a single user message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bqbuild.config.jinja import Renderer
from bqbuild.config.mistakes import Mistakes
from bqbuild.config.rendered import render_values
from bqbuild.config.rowtemplate import Piece, RenderError, RowTemplate, RowTemplates
from bqbuild.config.specs import PromptFrontMatter
from bqbuild.config.validate import validate
from bqbuild.config.yamlfile import Document, parse_yaml
from bqbuild.core.errors import ProjectError, Where, did_you_mean
from bqbuild.core.records import Message

__all__ = ["PromptTemplate", "Prompts", "RenderError", "read_prompts"]


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A prompt, ready to be rendered for any row.

    `columns` are the columns and matrix keys that it reads, with the place of the first reading; `variables` what it
    reads by `var()`; `identity` what of the file counts: the canonical trees of its messages, not `front.params`;
    `places` where the keys of its front matter stand, by dotted key.
    """

    name: str
    path: str
    front: PromptFrontMatter
    identity: Any
    columns: Mapping[str, Where]
    variables: frozenset[str]
    places: Mapping[str, Where] = field(repr=False, compare=False)
    _system: RowTemplate | None = field(repr=False, compare=False)
    _body: RowTemplate = field(repr=False, compare=False)
    _marker: re.Pattern[str] = field(repr=False, compare=False)

    def pieces(self) -> dict[str, Piece]:
        """Its parts: `body`, `system`, and `include:<prompt>` and `macro:<name>` for all that these reach."""
        found = self._body.pieces()
        if self._system:
            system = self._system.pieces()
            found["system"] = system.pop("body")
            found = {**system, **found}
        return found

    def render(self, row: Mapping[str, Any]) -> tuple[Message, ...]:
        """The messages for a row. Raises RenderError where NULL would be printed, or nothing is left to send."""
        system = self._system.render(row).strip() if self._system else ""
        messages = [Message("system", system)] if system else []
        parts = self._marker.split(self._body.render(row))
        for role, text in zip(["user", *parts[1::2]], parts[0::2], strict=True):
            if content := text.strip():
                messages.append(Message(role, content))
        if not messages:
            raise RenderError("the prompt renders to nothing", where=Where(self.path))
        return tuple(messages)


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a project by full name and, where that is unique, by bare name; and those that are broken."""

    found: Mapping[str, PromptTemplate]
    broken: frozenset[str]

    def has(self, name: str) -> bool:
        """Whether there is a file for the prompt."""
        return name in self.found or name in self.broken

    def nearest(self, name: str) -> str | None:
        """A hint for a prompt that is not there, or whose bare name several have."""
        several = sorted(each for each in self.found if each.endswith(f"/{name}"))
        return f"write one of {', '.join(several)}" if several else did_you_mean(name, self.found)


def read_prompts(sources: Mapping[str, str], library: RowTemplates, renderer: Renderer, mistakes: Mistakes) -> Prompts:
    """The prompts in `sources` (`prompts/stem/ask.md` → text). Mistakes are noted."""
    fronts: dict[str, _Front] = {}
    for shown_as, source in sources.items():
        name = shown_as.removeprefix("prompts/").removesuffix(".md")
        with mistakes.caught():
            front = _add(name, shown_as, source, library, _Readers(renderer, mistakes))
            if front is not None:
                fronts[name] = front
    short = _short_names(fronts)
    for alias, full in short.items():
        library.alias(alias, full)
    prompts = {name: _prompt(name, front, library, mistakes) for name, front in fronts.items()}
    found = {**prompts, **{alias: prompts[full] for alias, full in short.items() if full}}
    names = {path.removeprefix("prompts/").removesuffix(".md") for path in sources} - set(prompts)
    return Prompts(found, frozenset(names | {name.rsplit("/", 1)[-1] for name in names}))


@dataclass(frozen=True, slots=True)
class _Readers:
    renderer: Renderer
    mistakes: Mistakes


@dataclass(frozen=True, slots=True)
class _Front:
    path: str
    spec: PromptFrontMatter
    places: Mapping[str, Where]


def _add(name: str, shown_as: str, source: str, library: RowTemplates, readers: _Readers) -> _Front | None:
    """Split one file and make its templates known."""
    matter, body, body_line = _split(source, shown_as)
    front: PromptFrontMatter | None = PromptFrontMatter()
    if matter is not None and matter.value is not None:
        value = matter.value
        if isinstance(value, dict):
            value = render_values(value, matter, readers.renderer, readers.mistakes, skip=("system",))
        front = validate(PromptFrontMatter, value, matter, readers.mistakes)
    is_good = library.add(name, body, Where(shown_as, body_line), readers.mistakes)
    if front is not None and front.system is not None and matter is not None:
        is_good &= library.add(
            f"{name} (system)", front.system, matter.text_where(("system",)), readers.mistakes, roles=False
        )
    if front is None or not is_good:
        return None
    return _Front(shown_as, front, matter.places(()) if matter is not None else {})


def _split(source: str, shown_as: str) -> tuple[Document | None, str, int]:
    """The front matter, the body, and the line where the body starts."""
    lines = source.split("\n")
    start = _fence(lines)
    if start is None:
        return None, source, 1
    for number, line in enumerate(lines[start:], start=start + 1):
        if line.rstrip() == "---":
            matter = parse_yaml("\n" * start + "\n".join(lines[start : number - 1]), shown_as)
            return matter, "\n".join(lines[number:]), number + 1
    raise ProjectError("the front matter has no end", where=Where(shown_as, start), hint="close it with a line `---`")


def _fence(lines: list[str]) -> int | None:
    """The number of the `---` line that opens the front matter; blank lines and a `# comment` may stand before it."""
    for number, line in enumerate(lines, start=1):
        if line.rstrip() == "---":
            opens = number == 1 or re.match(
                r"(description|system|params|tags|meta)\s*:", "".join(lines[number : number + 1])
            )
            return number if opens else None
        if line.strip() and not line.startswith("# "):
            return None
    return None


def _short_names(fronts: Mapping[str, object]) -> dict[str, str | None]:
    """Bare names of prompts in folders; None where two prompts share one."""
    short: dict[str, str | None] = {}
    for name in fronts:
        bare = name.rsplit("/", 1)[-1]
        if bare not in fronts:
            short[bare] = None if bare in short else name
    return short


def _prompt(name: str, matter: _Front, library: RowTemplates, mistakes: Mistakes) -> PromptTemplate:
    path, front = matter.path, matter.spec
    body = library.row_template(name, mistakes)
    system = library.row_template(f"{name} (system)", mistakes) if front.system is not None else None
    _check_messages(library.top_level(name), path, front, mistakes)
    identity = {"body": _trimmed(body.identity)}
    if system is not None:
        identity["system"] = _trimmed(system.identity)
    return PromptTemplate(
        name=name,
        path=path,
        front=front,
        identity=identity,
        columns={**body.columns, **(system.columns if system else {})},
        variables=body.variables | (system.variables if system else frozenset()),
        places=matter.places,
        _system=system,
        _body=body,
        _marker=re.compile(re.escape(library.marker) + "([a-z]+)\x03"),
    )


def _check_messages(parts: list[object], path: str, front: PromptFrontMatter, mistakes: Mistakes) -> None:
    """A file must say something, and must say who says it."""
    said = [part for part in parts if not isinstance(part, str) or part.strip()]
    if not said and front.system is None:
        mistakes.add("the prompt is empty", Where(path))
    roles = [number for number, part in enumerate(said) if isinstance(part, dict)]
    if roles and any(isinstance(part, str) for part in said[: roles[0]]):
        mistakes.add("text before the first role line belongs to no message", Where(path), "start with `user:`")


def _trimmed(identity: Any) -> Any:
    """The identity of messages: blanks at the ends of a message do not count, since they are not sent."""
    parts = [{}, *identity["body"], {}]
    trimmed: list[object] = []
    for before, part, after in zip(parts, parts[1:], parts[2:], strict=False):
        text = part
        if isinstance(text, str):
            text = text.lstrip() if isinstance(before, dict) else text
            text = text.rstrip() if isinstance(after, dict) else text
        if text != "":
            trimmed.append(text)
    return {**identity, "body": trimmed}
