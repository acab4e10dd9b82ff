"""`bqbuild run`: build models."""

from __future__ import annotations

from typing import Any

from bqbuild.cli.building import build_options, build_selected
from bqbuild.cli.settings import Settings, command


@command("run")
@build_options
def run_command(settings: Settings, **given: Any) -> int:
    """Build the selected models, or all: only what really changed."""
    return build_selected(settings, "run", **given)
