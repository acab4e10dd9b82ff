"""`project/profiles.yml`: the targets. Only the chosen one's values are rendered, so that another target's missing
environment variable harms nobody; the others are checked for unknown keys all the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bqbuild.config.jinja import Renderer
from bqbuild.config.mistakes import Mistakes
from bqbuild.config.rendered import render_values
from bqbuild.config.secrets import Secrets, environment_functions
from bqbuild.config.specs import TargetSpec
from bqbuild.config.validate import validate
from bqbuild.config.variables import Variables
from bqbuild.config.yamlfile import Document
from bqbuild.core.errors import ProjectError, Where, did_you_mean

FILE = "project/profiles.yml"
_KEYS = ("default", "targets")


@dataclass(frozen=True, slots=True)
class TargetName:
    """The name of a target and of its environment, as `target.name` in templates."""

    name: str

    def __str__(self) -> str:
        return self.name


def choose_target(document: Document, wanted: str | None, environ: Mapping[str, str], mistakes: Mistakes) -> str | None:
    """The name of the target: `wanted`, else the file's default. None, with the mistakes noted, where there is none."""
    value = document.value
    if not isinstance(value, dict):
        mistakes.add("must have `default` and `targets`", Where(document.shown_as))
        return None
    for key in value:
        if key not in _KEYS:
            mistakes.add(f"unknown key '{key}'", document.where((key,)), did_you_mean(key, _KEYS))
    targets = value.get("targets")
    if not isinstance(targets, dict) or not targets:
        mistakes.add("missing key 'targets'" if targets is None else "`targets` must be a mapping", _at(document))
        return None
    name, where = wanted, None
    if name is None:
        name = _default(document, environ, mistakes)
        where = document.value_where(("default",))
    if name is None:
        return None
    if name not in targets:
        hint = did_you_mean(name, targets) or f"targets: {', '.join(targets)}"
        mistakes.add(f"there is no target '{name}'", where or document.where(("targets",)), hint)
        return None
    return name


def read_target(
    document: Document, name: str, variables: Variables, environ: Mapping[str, str], mistakes: Mistakes
) -> tuple[TargetSpec | None, Secrets]:
    """The target called `name` and the secrets in it. Adds the target's `vars` to `variables`."""
    secrets = Secrets()
    renderer = Renderer({**environment_functions(environ, secrets), "var": variables.var}, {"target": TargetName(name)})
    path = ("targets", name)
    value = document.value["targets"][name]
    if isinstance(value, dict):
        own = value.get("vars")
        if isinstance(own, dict):
            own = render_values(own, document, renderer, mistakes, path=(*path, "vars"))
            variables.add_target(own)
        rest = {key: item for key, item in value.items() if key != "vars"}
        rest = render_values(rest, document, renderer, mistakes, path=path)
        value = rest if own is None else {**rest, "vars": own}
    spec = validate(TargetSpec, value, document, mistakes, path)
    if spec is not None:
        _refuse_recorded(value, secrets, document, mistakes, path)
        _keep_secret(spec, secrets)
    _check_others(document, name, mistakes)
    return spec, secrets


_HOLDS_SECRETS = frozenset({"api_key", "headers", "base_url", "endpoints"})
"""Keys of a connection that are never recorded: all else is part of keys, call records and names."""


def _refuse_recorded(
    value: Any, secrets: Secrets, document: Document, mistakes: Mistakes, path: tuple[str | int, ...]
) -> None:
    """Note every value that a secret was read into and that would be written down."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in _HOLDS_SECRETS:
                _refuse_recorded(item, secrets, document, mistakes, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _refuse_recorded(item, secrets, document, mistakes, (*path, number))
    elif isinstance(value, str) and secrets.found_in(value):
        keys = " ".join(sorted(_HOLDS_SECRETS))
        hint = f"what stands here is recorded; a connection's {', '.join(keys.split())} are not"
        mistakes.add(f"a secret has no place in `{path[-1]}`", document.value_where(path), hint)


def _keep_secret(spec: TargetSpec, secrets: Secrets) -> None:
    for connection in spec.llms.values():
        secrets.add(connection.api_key)
        for header, value in connection.headers.items():
            if header.lower() in ("authorization", "api-key", "x-api-key"):
                secrets.add(value)
    for connection in spec.llms.values():
        connection.remember_secrets(secrets.values())


def _check_others(document: Document, chosen: str, mistakes: Mistakes) -> None:
    for name, value in document.value["targets"].items():
        if name != chosen:
            validate(TargetSpec, _without_templates(value), document, mistakes, ("targets", name))


def _without_templates(value: Any) -> Any:
    """`value` with what would be rendered left out, where leaving out is allowed, or put as a harmless text."""
    if isinstance(value, dict):
        kept = {"provider", "model", "store"}
        return {key: _without_templates(item) for key, item in value.items() if key in kept or not _is_template(item)}
    return [_without_templates(item) for item in value if not _is_template(item)] if isinstance(value, list) else value


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def _default(document: Document, environ: Mapping[str, str], mistakes: Mistakes) -> str | None:
    value = document.value.get("default")
    if value is None:
        mistakes.add("missing key 'default'", _at(document), "name the target that is used where none is asked for")
        return None
    if not isinstance(value, str):
        return str(value)
    try:
        return str(Renderer(environment_functions(environ, None)).value(value, document.value_where(("default",))))
    except ProjectError as error:
        mistakes.note(error)
        return None


def _at(document: Document) -> Where:
    return Where(document.shown_as, 1)
