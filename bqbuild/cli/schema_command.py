"""`bqbuild schema`: JSON Schemas of the files that users write, for editors."""

from __future__ import annotations

from pathlib import Path

import click

from bqbuild.cli.output import json_text, print_json
from bqbuild.cli.settings import Settings, command

FILES = ("bqbuild.yml", "profiles.yml", "models.yml", "prompt.md")


@command("schema")
@click.argument("file", type=click.Choice(FILES), required=False)
@click.option("--output-dir", type=click.Path(file_okay=False, path_type=Path), help="Write one file a schema there.")
def schema_command(settings: Settings, file: str | None, output_dir: Path | None) -> None:
    """Print the JSON Schema of FILE, or all of them in one object.

    In VS Code, `# yaml-language-server: $schema=PATH` on a file's first line checks and completes it.
    """
    from bqbuild.config.schemas import json_schemas

    schemas = {name: schema for name, schema in json_schemas().items() if file in (None, name)}
    if output_dir is None:
        print_json(schemas[file] if file else schemas)
        return
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas.items():
        path = output_dir / f"{name.partition('.')[0]}.schema.json"
        path.write_text(json_text(schema, indent=2) + "\n", encoding="utf-8")
        settings.say(f"wrote {path}")
