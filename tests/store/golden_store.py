"""The golden store of a release: a project, the store that this release made of it, and the digests it came to.

`python -m tests.store.golden_store` makes the store of a release that has none yet, against a counting server.
`… --pin` writes `expected.json` again from what today's code makes of the recorded calls, for a change of digests that
is meant: it refuses where a call would be sent, because no release may do that (C12).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from bqbuild import __version__
from bqbuild.store.journal import decode_line
from bqbuild.store.segments import DATA, Segment
from tests.llm_server import LlmServer
from tests.space import Space

GOLDEN = Path(__file__).parent / "golden"
SENT = "a release may never send a call that an earlier one recorded"


def releases() -> list[str]:
    """The releases that left a golden store."""
    return sorted(path.name for path in GOLDEN.iterdir() if (path / "store").is_dir())


def unpack(release: str, root: Path, server: LlmServer, *, part: str = "store") -> Space:
    """A copy of the golden project with its `store`, with its `calls` alone, or with these as the `journal` that a
    killed process leaves."""
    folder = GOLDEN / release
    shutil.copytree(folder / "project", root)
    store = root / ".bqbuild"
    if part == "store":
        shutil.copytree(folder / "store", store)
    else:
        calls = folder / "store" / "v1" / "calls" if part == "calls" else folder / "journal"
        shutil.copytree(calls, store / "v1" / "calls")
    return Space(root, server)


def expected(release: str) -> dict[str, Any]:
    """What is pinned: the keys of the calls, and by node the definition hash, the build key and the tables."""
    document: dict[str, Any] = json.loads((GOLDEN / release / "expected.json").read_text("utf-8"))
    return document


def found(space: Space) -> dict[str, Any]:
    """The same of a project that was built."""
    with space.session() as session:
        pointers = session.pointers()
        return {
            "calls": sorted(recorded_keys(space.root / ".bqbuild")),
            "definitions": {str(name): session.recipe(name).digest for name in session.dag.order},
            "builds": {str(name): pointers[name].trace for name in session.dag.order},
            "tables": {str(name): dict(pointers[name].tables) for name in session.dag.order},
        }


def recorded_keys(store: Path) -> set[str]:
    """The keys of all calls in the segments of a store."""
    keys: set[str] = set()
    for path in (store / "v1" / "calls" / "segments").glob(f"*{DATA}"):
        segment = Segment(path)
        keys |= {decode_line(line)["key"] for line in segment.sound_lines()}
        segment.close()
    return keys


def make(release: str) -> None:
    """Build the golden project of a release and keep its store."""
    folder = GOLDEN / release
    if (folder / "store").exists():
        sys.exit(f"{folder / 'store'} is there: what a release wrote is not written again")
    with tempfile.TemporaryDirectory() as place, LlmServer() as server:
        shutil.copytree(folder / "project", Path(place) / "golden")
        space = Space(Path(place) / "golden", server)
        results = space.run()
        assert {result.status for result in results.values()} == {"success"}, results
        shutil.copytree(space.root / ".bqbuild", folder / "store", ignore=shutil.ignore_patterns("dev", "leases"))
        shutil.rmtree(folder / "store" / "v1" / "scratch")
        _pin(folder, space)


def pin(release: str) -> None:
    """Write expected.json again from what today's code makes of the recorded calls."""
    with tempfile.TemporaryDirectory() as place, LlmServer() as server:
        space = unpack(release, Path(place) / "golden", server, part="calls")
        space.run()
        if space.sent:
            sys.exit(SENT)
        _pin(GOLDEN / release, space)


def _pin(folder: Path, space: Space) -> None:
    text = json.dumps(found(space), indent=1, sort_keys=True)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    if "--pin" in sys.argv:
        for each in releases():
            pin(each)
    else:
        make(__version__.rpartition(".")[0])
