from __future__ import annotations

from bqbuild.cli.drawing import dot, mermaid, tree

EDGES = {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": ["e"], "e": []}


def test_a_diamond_is_drawn_once_and_pointed_to_the_second_time() -> None:
    lines = list(tree(["a"], lambda name: EDGES[name], lambda name, above: f"{name}<{above or ''}"))
    assert lines == [
        "a<",
        "├─ b<a",
        "│  └─ d<b",
        "│     └─ e<d",
        "└─ c<a",
        "   └─ d<c (shown above)",
    ]


def test_names_that_need_quotes_get_them() -> None:
    labels = {'a"b': 'a"b\nsql'}
    assert '  "a\\"b" [label="a\\"b\\nsql"];' in list(dot(labels, []))
    assert '  n0["a#quot;b<br>sql"]' in list(mermaid(labels, []))
