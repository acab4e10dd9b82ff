"""`bqbuild build`: models and their data tests, in the order of the graph."""

from __future__ import annotations

from typing import Any

from bqbuild.cli.building import build_options, build_selected
from bqbuild.cli.settings import Settings, command


@command("build")
@build_options
def build_command(settings: Settings, **given: Any) -> int:
    """Build models and run their data tests, in the order of the graph.

    What is below a model whose test fails is not built.
    """
    return build_selected(settings, "build", tests=True, **given)
