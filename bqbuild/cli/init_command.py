"""`bqbuild init`: a small project that runs as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from bqbuild.cli.settings import Settings, command
from bqbuild.core.errors import UsageError

TEMPLATE = Path(__file__).parent / "template"
EXAMPLE = "texts.jsonl"
KEY = "    key: [{key}]\n"


@command("init")
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--from", "data", type=click.Path(path_type=Path), help="A JSONL file of your own texts to start with.")
@click.option("--name", help="The project's name; the folder's where it is not given.")
def init_command(settings: Settings, folder: Path | None, data: Path | None, name: str | None) -> None:
    """Make a new project in FOLDER: a source, a SQL model, a synthesis, a filter and a test.

    Without FOLDER and --from it asks, if somebody is there to answer; else it takes the working directory.
    """
    if folder is None and data is None and sys.stdin.isatty():
        folder = Path(click.prompt("Folder of the project", default=".", err=True))
        answer = click.prompt("JSONL file with your texts (empty: a few examples)", default="", err=True)
        data = Path(answer).expanduser() if answer else None
    folder = folder or Path()
    write_project(folder, data=data, name=name or _identifier(folder.resolve().name))
    settings.say(f"The project is in {folder.resolve()}. Next:")
    for line in (f"cd {folder}", "bqbuild debug --fetch-model", "bqbuild plan", "bqbuild run", "bqbuild show kept"):
        if line != "cd .":
            settings.say(f"  {line}")


def write_project(folder: Path, *, data: Path | None, name: str) -> None:
    """Write the files of a new project. Raises UsageError where that would replace a file, or `data` does not fit."""
    words = {"NAME": name, "SOURCE": "texts", "FILE": EXAMPLE, "TEXT": '"text"', "KEY": KEY.format(key="id")}
    if data is not None:
        words |= _described(data)
    files = {path.relative_to(TEMPLATE).as_posix(): path for path in sorted(TEMPLATE.rglob("*")) if path.is_file()}
    texts = {file.replace("gitignore", ".gitignore"): _filled(path, words) for file, path in files.items()}
    if data is not None:
        del texts[f"project/sources/{EXAMPLE}"]
        texts[f"project/sources/{data.name}"] = data.read_text("utf-8")
    taken = [file for file in texts if file != ".gitignore" and (folder / file).exists()]
    if taken:
        raise UsageError(f"{folder / taken[0]} is there already", hint="choose an empty folder")
    for file, text in texts.items():
        if not (folder / file).exists():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text, encoding="utf-8")


def _filled(path: Path, words: dict[str, str]) -> str:
    text = path.read_text("utf-8")
    for word, value in words.items():
        text = text.replace(f"__{word}__", value)
    return text


def _described(data: Path) -> dict[str, str]:
    """What the template must know of the user's file: its longest column of text, and its key if it has an `id`."""
    rows = _rows(data)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lengths = {name: sum(len(value) for row in rows if isinstance(value := row.get(name), str)) for name in columns}
    usable = {name: length for name, length in lengths.items() if length and not {"{", "}"} & set(name)}
    if not usable:
        raise UsageError(f"{data} has no column of text", hint='each line is an object: {"text": "…"}')
    text = "text" if "text" in usable else max(usable, key=lambda name: usable[name])
    ids = [row.get("id") for row in rows]
    quoted = text.replace('"', '""')
    return {
        "SOURCE": _identifier(data.stem),
        "FILE": data.name,
        "TEXT": f'"{quoted}"',
        "KEY": KEY.format(key="id") if None not in ids and len({str(key) for key in ids}) == len(ids) else "",
    }


def _rows(data: Path) -> list[dict[str, object]]:
    import json

    try:
        lines = [line for line in data.read_text("utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{data} cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{data}:{number}: this is not JSON: {error}", hint="one object a line") from error
        if not isinstance(row, dict):
            raise UsageError(f"{data}:{number}: this is not an object", hint='each line is an object: {"text": "…"}')
        rows.append(row)
    if not rows:
        raise UsageError(f"{data} is empty")
    return rows


def _identifier(text: str) -> str:
    """A name for projects and sources: letters, digits and `_`."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII).strip("_") or "project"
    return name if not name[0].isdigit() else f"_{name}"
