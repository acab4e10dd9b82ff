"""What is remembered of a project never differs from what reading it would give: every edit is noticed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bqbuild.run import fingerprint, outline_cache
from bqbuild.run.outline_cache import FOLDER, OFF
from tests.cli.conftest import Bqbuild
from tests.cli.outlines import remembered, seen, seen_anew, write_many
from tests.space import Space

Edit = Callable[[Space], object]

MEANT: dict[str, Edit] = {
    "yaml of a model": lambda s: s.edit("models/models.yml", "question: string", "query: string"),
    "description": lambda s: s.edit("models/sources.yml", "key: id", "key: id, description: Notes"),
    "sql": lambda s: s.edit("models/large.sql", "size >=", "size >"),
    "macro": lambda s: s.edit("project/macros/words.sql", "upper", "lower"),
    "prompt": lambda s: s.edit("prompts/ask.md", "Ask about", "Ask of"),
    "included prompt": lambda s: s.edit("prompts/how.md", "short", "brief"),
    "code": lambda s: s.edit("models/code.py", "if mark", "if not mark"),
    "code that code reaches": lambda s: s.edit("models/helper.py", "'!'", "'?'"),
    "profiles": lambda s: s.edit("project/profiles.yml", "'mock'", "'mock-2'"),
    "variables": lambda s: s.edit("project/bqbuild.yml", "least: 2", "least: 4"),
    "lock": lambda s: s.edit("project/sources.lock", "    size: bigint\n", "    size: bigint\n    more: bigint\n"),
    "lock gone": lambda s: (s.root / "project/sources.lock").unlink(),
    "new file": lambda s: s.write("models/new.sql", "select 1 as one"),
    "new folder": lambda s: s.write("models/deep/er/new.sql", "select 1 as one"),
    "deleted file": lambda s: (s.root / "models/more/small.sql").unlink(),
    "renamed file": lambda s: (s.root / "models/large.sql").rename(s.root / "models/huge.sql"),
    "moved file": lambda s: (s.root / "models/more/small.sql").rename(s.root / "models/small.sql"),
    "two files that trade places": lambda s: _trade(s.root / "prompts/ask.md", s.root / "prompts/how.md"),
    "mistake": lambda s: s.edit("models/models.yml", "prompt: ask", "promt: ask"),
    "size and time kept": lambda s: _edit_in_secret(s.root / "prompts/how.md", b"short", b"quick"),
    "replaced, size and time kept": lambda s: _replace_in_secret(s.root / "prompts/how.md", b"short", b"quick"),
}


@pytest.fixture(params=["by content", "by stat"])
def many(request: pytest.FixtureRequest, capitals: Space, monkeypatch: pytest.MonkeyPatch) -> Space:
    """A project with a file of every kind, read before; its files are fresh, or have been there for long."""
    if request.param == "by stat":
        monkeypatch.setattr(fingerprint, "SETTLED_NS", 0)
    return write_many(capitals)


@pytest.mark.parametrize("edit", MEANT.values(), ids=MEANT)
def test_an_edit_is_noticed(edit: Edit, many: Space, bqbuild: Bqbuild, monkeypatch: pytest.MonkeyPatch) -> None:
    before = seen(bqbuild, many.root)
    assert before["codes"] == [0, 0]
    assert remembered(many.root) is not None
    assert seen(bqbuild, many.root) == before
    edit(many)
    assert remembered(many.root) is None
    after = seen(bqbuild, many.root)
    assert after != before
    assert after == seen_anew(bqbuild, many.root, monkeypatch)


@pytest.mark.parametrize(
    "edit",
    {
        "touched": lambda s: os.utime(s.root / "models/large.sql", (1, 1)),
        "written again": lambda s: s.write("models/large.sql", s.read("models/large.sql")),
        "data": lambda s: s.write("project/sources/notes.csv", "id,topic,size\n9,fog,9\n"),
        "a file of nobody's": lambda s: s.write("README.md", "hello"),
    }.values(),
    ids=["touched", "written again", "data", "a file of nobody's"],
)
def test_what_is_no_edit_is_not_read_again(edit: Edit, many: Space, bqbuild: Bqbuild) -> None:
    before = seen(bqbuild, many.root)
    edit(many)
    assert remembered(many.root) is not None
    assert seen(bqbuild, many.root) == before


def test_the_environment_variables_that_were_read_count_and_no_others(
    many: Space, bqbuild: Bqbuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen(bqbuild, many.root)
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    assert remembered(many.root) is not None
    monkeypatch.setenv("LLM_MODEL", "a-larger-one")
    assert remembered(many.root) is None
    after = seen(bqbuild, many.root)
    assert after["nodes"]["questions"]["definition"] != before["nodes"]["questions"]["definition"]
    assert after == seen_anew(bqbuild, many.root, monkeypatch)
    monkeypatch.delenv("LLM_MODEL")
    assert seen(bqbuild, many.root) == before


def test_every_target_and_every_set_of_variables_is_remembered_for_itself(
    many: Space, bqbuild: Bqbuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: list[tuple[str, ...]] = [(), ("--target", "other"), ("--vars", "{least: 7}"), ("--vars", "{least: 8}")]
    first = [seen(bqbuild, many.root, *way) for way in ways]
    assert len({str(found["nodes"]) for found in first}) == len(ways)
    assert [seen(bqbuild, many.root, *way) for way in ways] == first
    assert [seen_anew(bqbuild, many.root, monkeypatch, *way) for way in ways] == first
    monkeypatch.setenv("BQBUILD_TARGET", "other")
    assert seen(bqbuild, many.root) == first[1]


def test_another_release_of_a_library_or_of_bqbuild_reads_the_project_again(
    many: Space, bqbuild: Bqbuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "lib" / "some_library_that_parses.py"
    library.parent.mkdir()
    library.write_text("version = 1")
    monkeypatch.setattr(sys, "path", [str(library.parent), *sys.path])
    monkeypatch.setattr(outline_cache, "LIBRARIES", ("some_library_that_parses",))
    seen(bqbuild, many.root)
    assert remembered(many.root) is not None
    library.write_text("version = 22")
    assert remembered(many.root) is None


def test_weights_and_packages_that_changed_are_noticed(
    many: Space, bqbuild: Bqbuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    many.edit("models/models.yml", "function: 'code.py:shout',", "function: 'code.py:shout', packages: [some-package],")
    info = many.root / "lib" / "some_package-1.0.dist-info" / "METADATA"
    info.parent.mkdir(parents=True)
    info.write_text("Metadata-Version: 2.1\nName: some-package\nVersion: 1.0\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(info.parents[1])])
    before = seen(bqbuild, many.root)
    info.write_text("Metadata-Version: 2.1\nName: some-package\nVersion: 2.0\n")
    after = seen(bqbuild, many.root)
    assert after["nodes"]["shouted"]["definition"] != before["nodes"]["shouted"]["definition"]
    assert after == seen_anew(bqbuild, many.root, monkeypatch)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data.replace(b"large", b"LARGE"),
        lambda data: b"0" * 64 + data[64:],
        lambda data: data.partition(b"\n")[2],
    ],
    ids=["cut off", "empty", "altered", "signed by another", "not signed"],
)
def test_what_is_remembered_is_not_trusted_where_it_is_damaged_or_foreign(
    damage: Callable[[bytes], bytes], many: Space, bqbuild: Bqbuild
) -> None:
    before = seen(bqbuild, many.root)
    for path in (many.root / FOLDER).glob("*.json"):
        path.write_bytes(damage(path.read_bytes()))
    assert remembered(many.root) is None
    assert seen(bqbuild, many.root) == before
    assert remembered(many.root) is not None


def test_a_copy_of_the_project_brings_no_memory_with_it(many: Space, bqbuild: Bqbuild, tmp_path: Path) -> None:
    seen(bqbuild, many.root)
    (many.root / FOLDER).parent.rename(tmp_path / "kept")
    many.root.rename(tmp_path / "elsewhere")
    (tmp_path / "kept").rename(tmp_path / "elsewhere/.bqbuild")
    assert remembered(tmp_path / "elsewhere") is None


def test_the_key_of_another_user_opens_nothing(
    many: Space, bqbuild: Bqbuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(bqbuild, many.root)
    monkeypatch.setenv("BQBUILD_CACHE", str(tmp_path / "cache"))
    assert remembered(many.root) is None
    key = tmp_path / "cache" / "local.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    seen(bqbuild, many.root)
    assert remembered(many.root) is None


def test_no_secret_is_in_what_is_remembered(many: Space, bqbuild: Bqbuild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_KEY", "sk-from-the-environment")
    many.edit("project/profiles.yml", "model: another", "model: another, api_key: sk-from-the-file")
    for flags in ((), ("--target", "other")):
        assert seen(bqbuild, many.root, *flags)["codes"] == [0, 0]
    kept = list((many.root / FOLDER).glob("*.json"))
    assert len(kept) == 2
    assert not [path for path in kept if b"sk-from" in path.read_bytes()]
    monkeypatch.setenv("LLM_API_KEY", "sk-another")
    assert remembered(many.root) is None


def test_a_project_in_which_a_secret_shows_is_refused_and_not_remembered(
    many: Space, bqbuild: Bqbuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAG_TOKEN", "sk-in-the-wrong-place")
    many.edit("project/profiles.yml", "  dev: &dev\n", "  dev: &dev\n    vars: {tag: \"{{ env_var('TAG_TOKEN') }}\"}\n")
    many.edit("models/models.yml", "from: small, function", "from: small, tags: \"{{ var('tag') }}\", function")
    assert seen(bqbuild, many.root)["codes"] == [2, 2]
    assert remembered(many.root) is None
    assert not list((many.root / FOLDER).glob("*.json"))


def test_folders_behind_links_are_not_watched_and_so_nothing_is_remembered(
    many: Space, bqbuild: Bqbuild, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    (many.root / "models/shared").symlink_to(tmp_path / "shared")
    seen(bqbuild, many.root)
    assert remembered(many.root) is None


def test_a_project_that_cannot_be_written_to_is_read(
    many: Space, bqbuild: Bqbuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    (many.root / ".bqbuild").mkdir(exist_ok=True)
    (many.root / FOLDER).write_text("in the way")
    listed = bqbuild("ls")
    assert listed.code == 0
    assert "questions" in listed.out
    monkeypatch.setenv(OFF, "1")
    assert bqbuild("ls").out == listed.out


def test_old_memories_go(many: Space, bqbuild: Bqbuild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline_cache, "KEPT", 3)
    for number in range(5):
        bqbuild("ls", "--vars", f"{{least: {number}}}")
    assert len(list((many.root / FOLDER).glob("*.json"))) == 3
    assert remembered(many.root, variables="{least: 4}") is not None


def _edit_in_secret(path: Path, old: bytes, new: bytes) -> None:
    """Other content of the same size, with the times that the file had."""
    stat = path.stat()
    data = path.read_bytes()
    assert old in data
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _replace_in_secret(path: Path, old: bytes, new: bytes) -> None:
    stat = path.stat()
    other = path.with_suffix(".other")
    other.write_bytes(path.read_bytes().replace(old, new))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(path)


def _trade(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
