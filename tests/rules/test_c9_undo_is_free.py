"""C9: an earlier version of a prompt finds its calls and tables again."""

from __future__ import annotations

from bqbuild.core.events import NodeStarted
from bqbuild.run.execute import run
from bqbuild.run.options import RunOptions
from tests.space import Space, statuses


def test_c9_going_back_to_an_earlier_prompt_costs_nothing(built: Space) -> None:
    before = built.digests()
    built.edit("prompts/ask.md", "Write one question", "Write one hard question")
    built.run()
    assert built.digests() != before
    built.edit("prompts/ask.md", "Write one hard question", "Write one question")
    results = built.run()
    assert built.sent == 0
    assert set(statuses(results).values()) == {"cached"}
    assert built.digests() == before


def test_c9_data_sql_and_prompts_that_come_back_find_everything_below(built: Space) -> None:
    before = built.digests()
    edits = {
        "prompts/improve.md": ("Improve", "Do improve"),
        "models/staging/clean_notes.sql": ("id, topic", "id, upper(topic) as topic"),
        "project/sources/notes.jsonl": ("Paris", "Lutetia"),
        "models/models.yml": ("> 3", "> 30"),
    }
    texts = {path: built.read(path) for path in edits}
    for path, (old, new) in edits.items():
        built.edit(path, old, new)
        built.run()
    for path, text in texts.items():
        built.write(path, text)
    assert {step.action for step in built.plan().steps} == {"cached"}
    started: list[str] = []
    with built.session() as session:
        listen = [lambda event: started.append(event.name) if isinstance(event, NodeStarted) else None]
        run(session, session.models(), RunOptions(), listen)
    assert started == []  # no table is made again, free ones included
    assert built.digests() == before


def test_c9_another_environment_of_the_store_finds_what_the_first_one_built(built: Space) -> None:
    before = built.digests()
    built.edit("prompts/ask.md", "Write one question", "Write one hard question")
    built.run()
    built.edit("prompts/ask.md", "Write one hard question", "Write one question")
    built.edit("project/profiles.yml", "    store: .bqbuild", "    store: .bqbuild\n    environment: prod")
    results = built.run()
    assert built.sent == 0
    assert set(statuses(results).values()) == {"cached"}
    assert built.digests() == before
