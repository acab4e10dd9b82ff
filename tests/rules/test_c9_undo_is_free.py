"""C9: an earlier version of a prompt finds its calls and tables again."""

from __future__ import annotations

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
