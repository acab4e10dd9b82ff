"""What commands print to stdout: data, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import click


def print_json(document: Any) -> None:
    """One JSON document, indented."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2, default=str))
