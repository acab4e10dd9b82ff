"""D1 and D2 with several runs at once: each request is sent once, tables are right, nobody waits for ever."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.llm_server import LlmServer
from tests.rules.killable import Books, say, write_project
from tests.space import Space
from tests.zygote import Child, Zygote


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Forks runs."""
    with Zygote(tmp_path_factory.mktemp("zygote")) as started:
        yield started


@pytest.fixture
def books(llm_server: LlmServer) -> Books:
    """What the server got."""
    llm_server.answer = say
    llm_server.delay = 0.01
    return Books(llm_server)


@pytest.fixture
def space(tmp_path: Path, books: Books) -> Space:
    """The project, not built yet."""
    space = Space(tmp_path / "project", books.server)
    write_project(space)
    return space


def start(zygote: Zygote, space: Space, *arguments: str) -> Child:
    return zygote.start(space.root, *(arguments or ("run",)), environment={"LLM_URL": space.server.url})


def end(*runs: Child) -> None:
    for run in runs:
        assert run.wait() == 0, run.said()


def check(space: Space, books: Books, root: Path) -> None:
    """All was asked once, and the tables are those of one run alone."""
    books.check()
    with LlmServer(say) as other:
        alone = Space(root, other)
        for path in space.root.rglob("*"):
            if path.is_file() and ".bqbuild" not in path.parts:
                alone.write(str(path.relative_to(space.root)), path.read_text("utf-8"))
        alone.run()
        expected = alone.digests()
    assert {name: found for name, found in space.digests().items() if name in expected} == expected
    again = space.run()
    assert {result.status for result in again.values()} == {"cached"}
    assert not list((space.root / ".bqbuild" / "v1").glob("damaged/*"))


@pytest.mark.parametrize("count", [2, 4])
def test_runs_at_once_on_a_fresh_store_ask_once(
    space: Space, books: Books, zygote: Zygote, tmp_path: Path, count: int
) -> None:
    end(*[start(zygote, space) for _ in range(count)])
    check(space, books, tmp_path / "alone")


@pytest.mark.parametrize("count", [2, 4])
def test_runs_at_once_on_a_half_built_store_ask_for_the_rest_once(
    space: Space, books: Books, zygote: Zygote, tmp_path: Path, count: int
) -> None:
    half_built(space, books, zygote, 20)
    space.edit("prompts/label.md", "Version 1", "Version 2")
    end(*[start(zygote, space) for _ in range(count)])
    space.edit("prompts/improve.md", "Version 1", "Version 2")
    end(*[start(zygote, space) for _ in range(count)])
    check(space, books, tmp_path / "alone")


def test_two_targets_on_one_store_ask_once(space: Space, books: Books, zygote: Zygote, tmp_path: Path) -> None:
    end(*[start(zygote, space, "--target", target, "run") for target in ("dev", "ci", "dev", "ci")])
    with space.session() as session:
        environments = [session.store.environments.read(f"killable/{name}") for name in ("dev", "ci")]
    assert environments[0] == environments[1]
    check(space, books, tmp_path / "alone")


def test_runs_of_parts_at_once_ask_once(space: Space, books: Books, zygote: Zygote, tmp_path: Path) -> None:
    parts = [("run", "--select", "+answers"), ("run", "--select", "+labelled"), ("run",), ("run", "--select", "+kept")]
    end(*[start(zygote, space, *part) for part in parts])
    check(space, books, tmp_path / "alone")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_dies_while_others_wait_for_it_leaves_them_the_rest(
    space: Space, books: Books, zygote: Zygote, tmp_path: Path, number: int
) -> None:
    books.stop_at = 20
    first = start(zygote, space)
    while len(books.server.requests) < 20:
        assert first.is_running(0.01), first.said()
    others = [start(zygote, space), start(zygote, space)]
    sessions = space.root / ".bqbuild" / "v1" / "scratch"
    while len(list(sessions.glob("session-*"))) < 3:
        assert all(run.is_running(0.01) for run in others)
    first.kill(number)
    while number != signal.SIGKILL and first.is_running(0.5):  # the first one lets calls end, and these never do
        first.kill(number)
    assert first.wait(30) in (-number, 130), first.said()
    books.excuse(space.root / ".bqbuild")
    books.stop_at = None
    end(*others)
    check(space, books, tmp_path / "alone")


@pytest.mark.parametrize(
    ("selected", "requests", "old", "new"),
    [
        ("+questions", 5, "    from: clean\n", "    from: clean\n    on_error: 'null'\n"),
        ("+questions", 5, "grade: [low, high]", "grade: [high, low, middle]"),
        ("+labelled", 20, "    from: answers\n", "    from: answers\n    where: length(answer) > 1\n"),
        ("*", 20, "name: labelled", "name: labels"),
        ("+kept", 50, "length(question) > 3", "length(question) > 2"),
    ],
)
def test_a_run_after_an_edit_asks_for_nothing_that_another_run_has_under_way(
    space: Space, books: Books, zygote: Zygote, tmp_path: Path, selected: str, requests: int, old: str, new: str
) -> None:
    books.stop_at = requests
    first = start(zygote, space, "run", "--select", selected)
    while len(books.server.requests) < requests:
        assert first.is_running(0.01), first.said()
    space.edit("models/models.yml", old, new)
    if "labels" in new:
        space.edit("models/models.yml", "from: labelled", "from: labels")
        space.edit("models/counts.sql", "'labelled'", "'labels'")
    second = start(zygote, space, "run", "--select", selected)
    sessions = space.root / ".bqbuild" / "v1" / "scratch"
    while len(list(sessions.glob("session-*"))) < 2:
        assert second.is_running(0.01), second.said()
    assert second.is_running(1.0), second.said()  # time enough to send what it should not
    books.go_on()
    end(first, second)
    end(start(zygote, space))
    check(space, books, tmp_path / "alone")


def half_built(space: Space, books: Books, zygote: Zygote, requests: int) -> None:
    """Kill a run at a request."""
    books.stop_at = requests
    killed = start(zygote, space)
    while len(books.server.requests) < requests:
        assert killed.is_running(0.01), killed.said()
    killed.kill()
    killed.wait()
    books.excuse(space.root / ".bqbuild")
    books.stop_at = None


def test_a_run_that_is_told_to_end_records_the_calls_that_are_under_way(
    space: Space, books: Books, zygote: Zygote, tmp_path: Path
) -> None:
    books.stop_at = 10
    run = start(zygote, space)
    while len(books.server.requests) < 13:  # four at a time: nine answered, four under way
        assert run.is_running(0.01), run.said()
    run.kill(signal.SIGTERM)
    while "stopping" not in run.said():
        assert run.is_running(0.01), run.said()
    books.go_on()
    assert run.wait(30) == 130, run.said()
    assert not list((space.root / ".bqbuild" / "v1").glob("calls/journal-*"))
    end(start(zygote, space))
    check(space, books, tmp_path / "alone")
