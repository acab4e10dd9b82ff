from __future__ import annotations

import json

from tests.cli.conftest import Bqbuild
from tests.space import Space


def test_parse_counts_what_it_read_and_writes_the_manifest(bqbuild: Bqbuild, capitals: Space) -> None:
    done = bqbuild("parse")
    assert done.code == 0
    assert done.out == (
        "capitals (dev): 1 annotate, 1 filter, 1 refine, 1 source, 1 sql, 1 synthesize; 3 prompts; no mistakes\n"
    )
    assert set(json.loads(capitals.read(".bqbuild/dev/manifest.json"))["nodes"]) >= {"notes", "kept"}


def test_parse_reads_no_data(bqbuild: Bqbuild, capitals: Space) -> None:
    capitals.write("project/sources/notes.jsonl", "this is not JSON")
    assert bqbuild("parse", "--json").json()["kinds"]["source"] == 1


def test_types_are_inferred_again_on_request_only(bqbuild: Bqbuild, built: Space) -> None:
    lines = built.read("project/sources/notes.jsonl").splitlines()
    changed = [json.dumps(json.loads(line) | {"year": number}) for number, line in enumerate(lines)]
    built.write("project/sources/notes.jsonl", "\n".join(changed))
    assert bqbuild("parse").code == 0
    assert "year" not in built.read("project/sources.lock")
    done = bqbuild("parse", "--update-sources")
    assert done.code == 0
    assert "notes: + year\n" in done.err
    assert "year: bigint" in built.read("project/sources.lock")
    assert "up to date" in bqbuild("parse", "--update-sources").err


def test_data_that_no_longer_fits_is_mended_by_the_command_that_the_error_names(bqbuild: Bqbuild, built: Space) -> None:
    built.edit("project/sources.lock", "topic: varchar", "topic: bigint")
    failed = bqbuild("run")
    assert failed.code == 1
    assert "bqbuild parse --update-sources" in failed.err
    assert "notes: topic: bigint → varchar" in bqbuild("parse", "notes", "--update-sources").err
    assert bqbuild("run").code == 0


def test_sources_that_are_gone_leave_the_lock(bqbuild: Bqbuild, built: Space) -> None:
    lock = built.read("project/sources.lock")
    built.write("project/sources.lock", lock + "  old:\n    id: varchar\n")
    assert "old: - id" in bqbuild("parse", "--update-sources").err
    assert built.read("project/sources.lock") == lock


def test_an_unknown_source_offers_the_nearest(bqbuild: Bqbuild, capitals: Space) -> None:
    done = bqbuild("parse", "--update-sources", "note")
    assert done.code == 2
    assert "did you mean 'notes'?" in done.err
    assert bqbuild("parse", "notes").code == 2
