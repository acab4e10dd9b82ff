"""Runs as a whole: nodes side by side."""

from __future__ import annotations

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
