from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Bqbuild
from tests.llm_server import LlmServer
from tests.space import Space


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def parts(space: Space, pattern: str) -> list[Path]:
    return sorted((space.root / ".bqbuild" / "v1").glob(pattern))


def test_a_sound_store_is_exit_0(bqbuild: Bqbuild, built: Space) -> None:
    done = bqbuild("fsck")
    assert done.code == 0
    assert done.out == ""
    assert "The store is sound" in done.err
    assert bqbuild("fsck", "--json").json() == {
        "damaged": [],
        "totals": {"damaged": 0, "calls": 0, "cost": 0, "seconds": 0},
        "succeeded": True,
    }


def test_damage_is_named_with_its_price_and_is_exit_1(bqbuild: Bqbuild, built: Space, llm_server: LlmServer) -> None:
    (calls,) = parts(built, "calls/segments/*.zst")
    table = parts(built, "tables/*/*/part-0000.parquet")[0]
    flip(calls)
    flip(table)
    done = bqbuild("fsck")
    assert done.code == 1
    assert str(table) in done.out
    assert str(calls) in done.out
    assert "24 calls lost, $" in done.out
    assert "set aside; the next run builds it again from recorded calls" in done.out
    assert "2 damaged: 1 file of calls, 1 table." in done.err
    llm_server.clear()
    refused = bqbuild("run", "--full-refresh")
    assert refused.code == 1
    assert str(calls) in refused.err
    assert "worth $" in refused.err
    assert "--repay" in refused.err
    assert not llm_server.requests
    assert bqbuild("run", "--full-refresh", "--repay").code == 0
    assert len(llm_server.requests) == 24
    assert bqbuild("fsck").code == 0


def test_json_has_every_damage_and_the_totals(bqbuild: Bqbuild, built: Space) -> None:
    (calls,) = parts(built, "calls/segments/*.zst")
    flip(calls)
    document = bqbuild("fsck", "--json")
    assert document.code == 1
    (damage,) = document.json()["damaged"]
    assert damage.keys() == {"what", "path", "problem", "action", "models", "calls", "cost", "seconds"}
    assert (damage["what"], damage["path"], damage["calls"]) == ("calls", str(calls), 24)
    assert document.json()["totals"]["cost"] == damage["cost"] > 0
    assert document.json()["succeeded"] is False
    assert bqbuild("fsck", "--repay").code == 1
    assert bqbuild("fsck").code == 0


def test_definitions_and_epochs_are_looked_at(bqbuild: Bqbuild, built: Space, llm_server: LlmServer) -> None:
    assert bqbuild("run", "--refresh-calls", "--select", "labelled").code == 0
    definition = parts(built, "definitions/*/*.json")[0]
    (epoch,) = parts(built, "calls/epochs/*.json")
    for path in (definition, epoch):
        flip(path)
    done = bqbuild("fsck")
    assert done.code == 1
    assert str(definition) in done.out
    assert str(epoch) in done.out
    assert "1 definition, 1 epoch" in done.err
    assert bqbuild("fsck").code == 0
    llm_server.clear()
    assert bqbuild("run").code == 0
    assert not llm_server.requests
    assert bqbuild("run", "--refresh-calls", "--select", "labelled").code == 0
    assert len(parts(built, "calls/epochs/*.json")) == 2  # its number is not given again
