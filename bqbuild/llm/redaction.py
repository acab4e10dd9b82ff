"""Keeps API keys out of everything that is shown or recorded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from bqbuild.config.secrets import secret_forms
from bqbuild.config.specs import ConnectionSpec

_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\s]+")
HIDDEN = "***"


class Redactor:
    """Knows the secrets of one connection: its key, headers that carry credentials, those in its URLs, and whatever
    else its target took from secret variables."""

    def __init__(self, connection: ConnectionSpec) -> None:
        found = {connection.api_key, connection.api_key.strip(), *connection.secrets}
        for name, value in connection.headers.items():
            if _SECRET_HEADER.search(name):
                found |= {value, value.rpartition(" ")[2]}
        for url in (connection.base_url or "", *connection.endpoints):
            parts = _split(url)
            found |= {parts.password or "", parts.query} if parts else set()
        # The longest first, so that a secret inside another leaves nothing of the outer one.
        self._secrets = _longest_first(found)
        # A reply is data: a placeholder such as `EMPTY` or `not-needed` must not eat words out of it.
        self._in_replies = [form.encode() for form in _longest_first(filter(_looks_real, found))]

    def text(self, text: str) -> str:
        """`text` without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def body(self, body: bytes) -> bytes:
        """The body of a reply without secrets that a server may have echoed."""
        for secret in self._in_replies:
            if secret in body:
                body = body.replace(secret, HIDDEN.encode())
        return body

    def reply(self, text: str) -> str:
        """The text of a reply without secrets that a server may have echoed."""
        for secret in self._in_replies:
            if secret.decode() in text:
                text = text.replace(secret.decode(), HIDDEN)
        return text

    def excerpt(self, text: str, most: int = 300) -> str:
        """`text` without secrets, on one line, and not longer than `most` characters."""
        # Cut after hiding, or half a secret could stay.
        line = _CONTROL.sub(" ", self.text(text)[: most * 20]).strip()
        return f"{line[:most]}..." if len(line) > most else line


def bare_url(url: str) -> str:
    """`url` without user, password and query, to be shown."""
    parts = _split(url)
    if parts is None or not parts.hostname:
        return "(not a URL)"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def is_http_url(url: str) -> bool:
    """Whether requests can be sent to `url`."""
    parts = _split(url)
    return (
        parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", url)
    )


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _longest_first(secrets: Iterable[str]) -> list[str]:
    """All forms of these secrets."""
    forms = {form for secret in secrets if secret for form in secret_forms(secret)}
    return sorted(forms, key=len, reverse=True)


def _looks_real(secret: str) -> bool:
    return len(secret) >= 12 or (len(secret) >= 8 and any(letter.isdigit() for letter in secret))
