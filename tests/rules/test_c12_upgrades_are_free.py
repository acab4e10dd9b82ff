"""C12: a new release of bqbuild or of a library never sends a call again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bqbuild.core.errors import StoreError
from bqbuild.nodes import SEMANTICS
from bqbuild.store import open_store
from tests.llm_server import LlmServer
from tests.space import Space, statuses
from tests.store.golden_store import expected, found, recorded_keys, releases, unpack

PIN = "where this change of digests is meant: python -m tests.store.golden_store --pin, and say so in the changelog"


@pytest.fixture(params=releases())
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_c12_nothing_is_to_be_done_with_the_store_of_an_earlier_release(
    tmp_path: Path, llm_server: LlmServer, release: str
) -> None:
    space = unpack(release, tmp_path / "golden", llm_server)
    assert set(statuses(space.run()).values()) <= {"cached", "success"}
    assert space.sent == 0
    assert found(space)["tables"] == expected(release)["tables"]


@pytest.mark.parametrize("part", ["calls", "journal"])
def test_c12_the_calls_of_an_earlier_release_are_all_found(
    tmp_path: Path, llm_server: LlmServer, release: str, part: str
) -> None:
    space = unpack(release, tmp_path / "golden", llm_server, part=part)
    results = space.run()
    assert set(statuses(results).values()) == {"success"}
    assert space.sent == 0
    assert sum(result.counts.cached_calls for result in results.values()) >= len(expected(release)["calls"])
    assert recorded_keys(space.root / ".bqbuild") == set(expected(release)["calls"])
    assert found(space)["tables"] == expected(release)["tables"]


def test_c12_a_store_without_a_marker_is_of_the_first_layout_and_gets_one(
    tmp_path: Path, llm_server: LlmServer
) -> None:
    space = unpack(releases()[0], tmp_path / "golden", llm_server)
    marker = space.root / ".bqbuild" / "store.json"
    marker.unlink()
    space.run()
    assert space.sent == 0
    assert json.loads(marker.read_text("utf-8"))["layout"] == 1


def test_c12_digests_are_those_of_the_golden_store(tmp_path: Path, llm_server: LlmServer, release: str) -> None:
    space = unpack(release, tmp_path / "golden", llm_server, part="calls")
    space.run()
    assert found(space) == expected(release), PIN


def test_c12_the_keys_of_new_calls_are_those_of_the_golden_store(
    tmp_path: Path, llm_server: LlmServer, release: str
) -> None:
    space = unpack(release, tmp_path / "golden", llm_server, part="calls")
    for path in (space.root / ".bqbuild" / "v1" / "calls" / "segments").iterdir():
        path.unlink()
    space.run()
    assert space.sent == len(expected(release)["calls"])
    assert recorded_keys(space.root / ".bqbuild") == set(expected(release)["calls"])


@pytest.mark.parametrize("kind", ["synthesize", "refine", "annotate", "filter", "mix", "sql"])
def test_c12_another_meaning_of_a_kind_builds_its_nodes_again_and_sends_nothing(
    tmp_path: Path, llm_server: LlmServer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = unpack(releases()[-1], tmp_path / "golden", llm_server)
    space.run()
    monkeypatch.setitem(SEMANTICS, kind, SEMANTICS[kind] + 1)
    results = space.run()
    assert space.sent == 0
    built = {name for name, status in statuses(results).items() if status == "success"}
    assert built == {name for name, result in results.items() if result.kind == kind}
    assert all(results[name].reason.startswith("this release builds") for name in built)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"layout": 2, "bqbuild": "9.0.0"}', "was written by a later release"),
        ("{}", "is damaged"),
        ("", "is damaged"),
        ('{"layout": "1"}', "is damaged"),
    ],
    ids=["newer", "no layout", "empty", "no number"],
)
def test_c12_a_store_that_this_release_cannot_know_is_refused_with_what_to_do(
    capitals: Space, text: str, says: str
) -> None:
    store = capitals.root / ".bqbuild"
    store.mkdir()
    (store / "store.json").write_text(text)
    with pytest.raises(StoreError, match=says) as raised:
        capitals.run()
    assert str(store) in raised.value.message
    assert raised.value.hint
    assert [path.name for path in store.iterdir()] == ["store.json"]
    assert not capitals.server.requests


def test_c12_a_store_that_is_opened_twice_keeps_its_marker(tmp_path: Path) -> None:
    open_store(str(tmp_path)).close()
    before = (tmp_path / "store.json").read_bytes()
    open_store(str(tmp_path)).close()
    assert (tmp_path / "store.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store.json", "v1"]
