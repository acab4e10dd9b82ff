"""Reading the environment of the process, and keeping what is secret out of everything that is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from urllib.parse import quote

from bqbuild.core.errors import ProjectError

_SECRET_ENDINGS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
_MASK = "***"
_SHORTEST = 4
"""Shorter values are not masked: they would turn any text into stars, and they protect nothing."""


class Secrets:
    """The secret values that a project has read. Grows while profiles are read, and is only asked afterwards."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def add(self, value: str) -> None:
        """Keep `value` from being shown, also as JSON and in URLs."""
        if len(value) >= _SHORTEST:
            self._values.update({value, json.dumps(value)[1:-1], quote(value, safe="")})

    def redact(self, text: str) -> str:
        """`text` with every secret in it masked."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, _MASK)
        return text

    def __repr__(self) -> str:
        return f"Secrets({len(self._values)})"


def is_secret_name(name: str) -> bool:
    """Whether the variable's name says that its value is a secret."""
    return name.upper().endswith(_SECRET_ENDINGS)


def environment_functions(environ: Mapping[str, str], secrets: Secrets | None) -> dict[str, Callable[..., object]]:
    """`env_var` and `secret_env_var` for templates. Without `secrets`, reading a secret is an error."""

    def read(name: str, default: tuple[object, ...], *, secret: bool) -> object:
        if secret and secrets is None:
            raise ProjectError(f"the secret '{name}' has no place here", hint="secrets go into project/profiles.yml")
        if name not in environ and not default:
            hint = f"set it, or give a default: {{{{ env_var('{name}', '…') }}}}"
            raise ProjectError(f"the environment variable '{name}' is not set", hint=hint)
        value = environ.get(name, default[0] if default else "")
        if secret and secrets is not None and isinstance(value, str):
            secrets.add(value)
        return value

    def env_var(name: str, *default: object) -> object:
        return read(name, default[:1], secret=is_secret_name(name))

    def secret_env_var(name: str, *default: object) -> object:
        return read(name, default[:1], secret=True)

    return {"env_var": env_var, "secret_env_var": secret_env_var}
