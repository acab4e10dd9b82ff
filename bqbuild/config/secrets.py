"""Reading the environment of the process, and keeping what is secret out of everything that is written."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from urllib.parse import quote

from bqbuild.core.errors import ProjectError

_SECRET_ENDINGS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
_MASK = "***"
_ESCAPE = re.compile("%[0-9A-F]{2}")
_ENCODED_FROM = 8
_SHORTEST = 4
"""Shorter values are not masked: they would turn any text into stars, and they protect nothing."""


class Secrets:
    """The secret values that a project has read. Grows while profiles are read, and is only asked afterwards."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._given: set[str] = set()

    def add(self, value: str) -> None:
        """Keep `value` from being shown, also as JSON and in URLs."""
        if len(value) >= _SHORTEST:
            self._given.add(value)
            self._values.update(secret_forms(value))

    def redact(self, text: str) -> str:
        """`text` with every secret in it masked."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, _MASK)
        return text

    def found_in(self, text: str) -> bool:
        """Whether a secret is in `text`, as it is."""
        return any(value in text for value in self._given)

    def values(self) -> frozenset[str]:
        """The secrets as they are."""
        return frozenset(self._given)

    def __repr__(self) -> str:
        return f"Secrets({len(self._values)})"


def secret_forms(value: str) -> set[str]:
    """A secret as it is, and as it looks in JSON, in URLs, in hexadecimal, and in the middle of base64.

    Base64 depends on what stands before: of each of the three ways the letters are taken that depend on the secret
    alone. Short secrets have no such forms, which would be found anywhere.
    """
    data = value.encode("utf-8", "surrogatepass")
    escaped = json.dumps(value)[1:-1]
    forms = {value, escaped, json.dumps(escaped)[1:-1]}
    for safe in ("", "/", "-"):
        url = quote(data, safe=safe)
        forms |= {url, _ESCAPE.sub(lambda match: match[0].lower(), url), url.replace("%20", "+")}
    if len(data) < _ENCODED_FROM:
        return forms
    forms |= {data.hex(), data.hex().upper()}
    for shift in range(3):
        letters = base64.b64encode(bytes(shift) + data).decode()
        core = letters[(0, 2, 3)[shift] : (shift + len(data)) * 8 // 6]
        forms |= {core, core.replace("+", "-").replace("/", "_")}
    return forms


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
