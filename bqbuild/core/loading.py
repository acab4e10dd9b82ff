"""Late imports: a part of bqbuild is loaded when it is asked for, and what it lacks is said in a sentence."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bqbuild.core.errors import BuildError

EXTRAS = {
    "torch": "train",
    "transformers": "train",
    "safetensors": "train",
    "llguidance": "embedded",
    "gguf": "embedded",
    "tokenizers": "embedded",
    "lm_eval": "eval",
    "lingua": "language",
}
"""The extra of bqbuild that installs a package which not everybody needs."""


def load(name: str) -> Any:
    """The attribute that `module:attribute` names; its module is imported now, not before.

    Raises BuildError where a package of an extra is not installed.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise BuildError(
            f"this needs the package `{package}`, which is not installed",
            hint=f"pip install 'bqbuild[{EXTRAS[package]}]'",
        ) from error
