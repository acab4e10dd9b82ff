"""Renders the Jinja in YAML values, each in its place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bqbuild.config.jinja import Renderer
from bqbuild.config.mistakes import Mistakes
from bqbuild.config.yamlfile import Document
from bqbuild.core.errors import ProjectError

_PROSE = "description"


def render_values(
    value: Mapping[str, Any],
    document: Document,
    renderer: Renderer,
    mistakes: Mistakes,
    *,
    path: tuple[str | int, ...] = (),
    skip: Collection[str] = (),
) -> dict[str, Any]:
    """`value` with every text in it rendered, but for its keys in `skip` and for descriptions anywhere.

    `path` is where `value` stands in the document. Mistakes are noted, and the text stays as it is.
    """

    def rendered(item: Any, at: tuple[str | int, ...]) -> Any:
        if isinstance(item, str):
            return one(item, at) if "{" in item else item
        if isinstance(item, dict):
            return {key: each if key == _PROSE else rendered(each, (*at, key)) for key, each in item.items()}
        if isinstance(item, list):
            return [rendered(each, (*at, number)) for number, each in enumerate(item)]
        return item

    def one(text: str, at: tuple[str | int, ...]) -> Any:
        try:
            return renderer.value(text, document.text_where(at))
        except ProjectError as error:
            mistakes.note(error)
            return text

    return {key: item if key in skip or key == _PROSE else rendered(item, (*path, key)) for key, item in value.items()}
