"""Runs as a whole: nodes side by side."""

from __future__ import annotations

from bqbuild.run.options import RunOptions
from tests.llm_server import Fault
from tests.space import Space, statuses


def test_many_models_of_one_recipe_are_built_side_by_side(bare: Space) -> None:
    bare.write("prompts/improve.md", "Improve: {{ topic }}")
    models = []
    for number in range(12):  # more than there are worker threads
        bare.write(
            f"models/notes_{number}.sql", f"select id, topic || '{number}' as topic from {{{{ source('notes') }}}}"
        )
        models.append(
            f"  - {{name: better_{number}, kind: refine, from: notes_{number}, prompt: improve, llm: writer, "
            "output: {columns: {topic: string}}}\n"
        )
    bare.write("models/m.yml", "models:\n" + "".join(models))
    assert set(statuses(bare.run()).values()) == {"success"}
    assert bare.sent == 36


def test_no_chain_waits_for_the_slowest_call_of_another(bare: Space) -> None:
    refine = "kind: refine, from: notes, llm: writer, output: {columns: {topic: string}}"
    models = [f"{{name: {name}, prompt: {name}, rounds: 2, {refine}}}" for name in ("one", "two", "three")]
    bare.write("models/m.yml", f"models: [{', '.join(models)}]")
    for name in ("one", "two", "three"):
        bare.write(f"prompts/{name}.md", f"Improve {name}: {{{{ topic }}}}")
    bare.server.fault = lambda body, number: Fault(delay=1.0) if number <= 3 else None
    bare.run(options=RunOptions(threads=1))
    early = [str(body) for body in bare.server.requests[:9]]
    assert all(any(f"Improve {name}" in body for body in early) for name in ("one", "two", "three"))
    assert bare.sent == 18


def test_only_runs_that_moved_a_pointer_are_in_the_history(bare: Space) -> None:
    bare.write("models/a.sql", "select id, topic from {{ source('notes') }}")
    bare.plan()
    bare.run()
    bare.run()
    bare.write("models/a.sql", "select id, upper(topic) as topic from {{ source('notes') }}")
    bare.run()
    with bare.session() as session:
        newest, first = session.store.runs.list(session.environment)
        assert newest.pointers == session.pointers() != first.pointers
        assert [newest.command, first.command] == ["run", "run"]
        assert list(session.store.runs.environments()) == [session.environment]
