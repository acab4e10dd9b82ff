from __future__ import annotations

from tests.cli.conftest import Bqbuild
from tests.llm_server import LlmServer
from tests.space import Space


def change(space: Space) -> None:
    space.edit("prompts/label.md", "How difficult", "How hard")
    space.run()


def test_where_all_is_in_use_nothing_can_go(bqbuild: Bqbuild, built: Space) -> None:
    done = bqbuild("gc")
    assert done.code == 0
    header, _, *rows = done.out.splitlines()
    assert header.split() == ["what", "can", "go", "size", "worth", "kept", "kept", "size"]
    assert {row.split()[0]: row.split()[1] for row in rows} == dict.fromkeys(
        ("traces", "definitions", "runs", "tables", "calls"), "0"
    )
    assert "Nothing can go" in done.err
    assert "--yes" not in done.err


def test_what_can_go_is_shown_and_goes_with_yes(bqbuild: Bqbuild, built: Space, llm_server: LlmServer) -> None:
    change(built)
    shown = bqbuild("gc", "--keep-runs", "0")
    assert "Would delete" in shown.err
    assert "`bqbuild gc --yes` deletes." in shown.err
    document = bqbuild("gc", "--keep-runs", "0", "--json").json()
    assert document["deleted"] is False
    assert (document["drop"]["tables"]["count"], document["drop"]["traces"]["count"]) == (1, 2)
    assert set(document["totals"]) == {"drop", "keep", "cost"}
    done = bqbuild("gc", "--keep-runs", "0", "--yes")
    assert (done.code, "Deleted" in done.err) == (0, True)
    assert "Nothing can go" in bqbuild("gc", "--keep-runs", "0").err
    built.edit("prompts/label.md", "How hard", "How difficult")
    llm_server.clear()
    assert bqbuild("run").code == 0
    assert not llm_server.requests  # the calls stayed


def test_calls_are_shown_with_what_they_cost_and_go_only_if_asked_for(bqbuild: Bqbuild, built: Space) -> None:
    change(built)
    bqbuild("gc", "--keep-runs", "0", "--yes")
    shown = bqbuild("gc", "--keep-runs", "0", "--calls")
    assert "The 8 calls would cost $" in shown.err
    assert "`bqbuild gc --calls --yes` deletes." in shown.err
    done = bqbuild("gc", "--keep-runs", "0", "--calls", "--yes")
    assert "The 8 calls cost $" in done.err
    assert bqbuild("fsck").code == 0
    assert bqbuild("gc", "--json").json()["keep"]["calls"]["count"] == 24


def test_pins_are_kept_and_named(bqbuild: Bqbuild, built: Space) -> None:
    pinned = bqbuild("gc", "--pin", "labelled")
    assert "Pinned" in pinned.err
    change(built)
    assert bqbuild("gc", "--keep-runs", "0", "--json").json()["drop"]["tables"]["count"] == 0
    (name,) = bqbuild("gc", "--json").json()["pins"]
    assert bqbuild("gc", "--unpin", name).code == 0
    wrong = bqbuild("gc", "--unpin", name)
    assert wrong.code == 2
    assert "nothing is pinned" in wrong.err
    assert bqbuild("gc", "--pin", "labeled").code == 2
