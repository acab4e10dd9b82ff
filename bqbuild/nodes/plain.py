"""Values of rows as JSON has them, for ids that are digests."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any


def plain(value: Any) -> Any:
    """A value in a form that has a digest: text for what JSON lacks."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return value.hex()
        case datetime() | date() | time():
            return value.isoformat()
        case list() | tuple():
            return [plain(item) for item in value]
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
    return str(value)
