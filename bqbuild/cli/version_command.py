"""`bqbuild version`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import click

from bqbuild import __version__
from bqbuild.cli.output import print_json
from bqbuild.cli.settings import Settings, command

PACKAGES = ("duckdb", "pyarrow", "sqlglot", "pydantic", "aiohttp", "torch", "transformers", "lm-eval")
"""Those whose versions a bug report should name."""


@command("version")
@click.option("--json", "as_json", is_flag=True, help="With the versions of what it stands on.")
def version_command(settings: Settings, as_json: bool) -> None:
    """Print the version."""
    if not as_json:
        click.echo(__version__)
        return
    packages = {name: _version(name) for name in PACKAGES}
    print_json({"bqbuild": __version__, "python": platform.python_version(), "packages": packages})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
