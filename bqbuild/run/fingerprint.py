"""Whether the files that a project was read from are still what they were.

A file is known by size, times, inode and device; where these differ, by its content. A file or folder that came, went
or was renamed is seen in the listing. A file that was written less than two seconds before it was looked at may be
written again within one tick of the clock of its times: it is known by its content alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bqbuild.config.layout import FILE, LOCK, PROFILES
from bqbuild.core.hashing import Digest, digest_file

FOLDERS = ("models", "prompts", "project/macros", "project/tests")
SINGLE = (FILE, PROFILES, LOCK)
CODE = ".py"
"""Files that recipes read though parsing does not."""

SETTLED_NS = 2_000_000_000

Stat = list[int]
Listing = Mapping[str, Stat]
Prints = dict[str, tuple[Stat | None, Digest | None]]
"""For each file its stat, where that can be trusted, and its digest, where its content counts; a folder ends in `/`
and has neither."""


class Unwatchable(Exception):
    """There is something in the project that a look at its folders does not show: a folder behind a symbolic link."""


def listing(root: Path) -> Listing:
    """Every file and folder that reading the project looks at. Raises Unwatchable, OSError."""
    found: dict[str, Stat] = {}
    for name in SINGLE:
        try:
            found[name] = _stat(os.stat(root / name))
        except FileNotFoundError:
            continue
    for folder in FOLDERS:
        if os.path.islink(root / folder):
            raise Unwatchable(folder)
        if os.path.isdir(root / folder):
            found.update(_walk(f"{root}/{folder}", folder))
    return found


@dataclass(frozen=True, slots=True)
class Before:
    """A project as it was found before it was read: when, its files, and the digests of its code."""

    time: int
    files: Listing
    code: Mapping[str, Digest]


def look_before(root: Path) -> Before:
    """What `take_prints` must know from before. Raises as `listing`."""
    began = time.time_ns()
    files = listing(root)
    return Before(began, files, {name: digest_file(root / name) for name in files if name.endswith(CODE)})


def take_prints(root: Path, before: Before, read: Mapping[str, Digest]) -> Prints | None:
    """The prints of a project, of which `read` tells the files that were read to parse it; None where something
    changed since `before`. Raises as `listing`."""
    counted = {**before.code, **read}
    if listing(root) != before.files or not counted.keys() <= before.files.keys():
        return None
    prints: Prints = {}
    for name, stat in before.files.items():
        digest = counted.get(name)
        if digest is not None and digest_file(root / name) != digest:
            return None
        is_trusted = digest is not None and _is_settled(stat, before.time)
        prints[name] = (stat if is_trusted else None, digest)
    return prints


def renewed_prints(root: Path, prints: Prints) -> Prints | None:
    """The prints, with new stats where only these moved (then it is another object); None where a file is not what it
    was. Raises as `listing`."""
    began = time.time_ns()
    now = listing(root)
    if now.keys() != prints.keys():
        return None
    moved: Prints = {}
    for name, (stat, digest) in prints.items():
        if digest is None or now[name] == stat:
            continue
        if digest_file(root / name) != digest:
            return None
        if _is_settled(now[name], began):
            moved[name] = (now[name], digest)
    return {**prints, **moved} if moved else prints


def _walk(path: str, shown_as: str) -> Iterator[tuple[str, Stat]]:
    with os.scandir(path) as entries:
        for entry in entries:
            name = f"{shown_as}/{entry.name}"
            if entry.is_dir():
                if entry.is_symlink():
                    raise Unwatchable(name)
                yield f"{name}/", []
                yield from _walk(entry.path, name)
            else:
                # a link that leads nowhere has a stat of its own
                yield name, _stat(entry.stat(follow_symlinks=entry.is_file()))


def _stat(stat: os.stat_result) -> Stat:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _is_settled(stat: Stat, now: int) -> bool:
    return now - max(stat[1], stat[2]) > SETTLED_NS
