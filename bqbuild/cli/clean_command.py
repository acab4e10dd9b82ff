"""`bqbuild clean`: removes what commands left in `.bqbuild/<target>/`."""

from __future__ import annotations

import click

from bqbuild.cli.figures import size
from bqbuild.cli.output import print_json
from bqbuild.cli.settings import Settings, command


@command("clean")
@click.option("--json", "as_json", is_flag=True, help="Print what was removed as JSON.")
def clean_command(settings: Settings, as_json: bool) -> int:
    """Remove the artifacts of the target: warehouse, manifest, results, logs, caches.

    The store's tables, calls and checkpoints stay; `bqbuild gc` is for those. The next command writes the artifacts
    again.
    """
    from bqbuild.run.cleaning import remove_artifacts
    from bqbuild.run.session import read_project

    project = read_project(settings.root(), target=settings.target, variables=settings.values())
    removed = remove_artifacts(project)
    if as_json:
        print_json(
            {
                "folder": str(removed.folder),
                "removed": list(removed.names),
                "files": removed.files,
                "bytes": removed.bytes,
                "store": project.store_path,
            }
        )
        return 0
    if removed.files:
        count = f"{removed.files:,} {'file' if removed.files == 1 else 'files'}"
        settings.say(f"Removed {count} ({size(removed.bytes)}) from {removed.folder}: {', '.join(removed.names)}.")
    else:
        settings.say(f"Nothing to remove: {removed.folder} has no artifacts.")
    settings.say(f"Every table and call is still in the store, {project.store_path}; `bqbuild gc` is for those.")
    return 0
