"""Templates whose result is known when the project is read."""

from __future__ import annotations

from typing import Any

import pytest

from bqbuild.config.jinja import Renderer
from bqbuild.core.errors import ProjectError, Where

VALUES = {"count": 3, "names": ["a", "b"], "word": "x"}


def read(name: str, *default: Any) -> Any:
    if name in VALUES:
        return VALUES[name]
    if default:
        return default[0]
    raise ProjectError(f"no '{name}'")


RENDERER = Renderer({"var": read}, {"target": "dev"})
HERE = Where("f.yml", 4, 7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("{{ var('count') }}", 3),
        ("{{ var('count') + 1 }}", 4),
        ("{{ var('names') }}", ["a", "b"]),
        ("{{ var('none', none) }}", None),
        ("{{ var('none', 1.5) }}", 1.5),
        ("{{ var('count') }} words", "3 words"),
        ("{{ target }}", "dev"),
        ("{% if var('count') > 2 %}many{% else %}few{% endif %}", "many"),
        ("{{ 'a' if var('count') > 5 }}", ""),
        ("{# nothing #}", ""),
        ("a { b } c", "a { b } c"),
    ],
)
def test_a_single_expression_keeps_its_type(text: str, expected: object) -> None:
    assert RENDERER.value(text, HERE) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ var('nope') }}", "f.yml:4:7: no 'nope'"),
        ("{{ var('nope') + 1 }}", "f.yml:4:7: no 'nope'"),
        ("a\n{{ var('nope') }}", "f.yml:5: no 'nope'"),
        ("a\n\n{% if var('nope') %}{% endif %}", "f.yml:6: no 'nope'"),
        ("{{ vra('x') }}", "f.yml:4:7: Jinja failed: 'vra' is undefined (did you mean 'var'?)"),
        ("{{ a + }}", "f.yml:4:7: broken Jinja"),
        ("a\n{{ x | nope }}", "f.yml:5: broken Jinja: No filter named 'nope'."),
        ("{{ var() }}", "f.yml:4:7: Jinja failed: read() missing"),
        ("{{ 1 / 0 }}", "f.yml:4:7: Jinja failed: division by zero"),
        ("{{ ''.__class__ }}", "unsafe"),
        ("{{ 'x' * 9999999999 }}", "too long"),
        ("{{ nope }}", "'nope' is undefined"),
        ("{{ range }}", "gives a function, not a value"),
        ("{{ [1, 2] | map('string') }}", "gives a generator, not a value"),
        ("{{ " + "-" * 20000 + "1 }}", "nested too deeply"),
    ],
)
def test_mistakes_are_told_at_their_line(text: str, message: str) -> None:
    with pytest.raises(ProjectError) as caught:
        RENDERER.value(text, HERE)
    assert message in str(caught.value)


def test_null_prints_nothing_outside_of_rows() -> None:
    assert RENDERER.text("a{{ var('none', none) }}b{{ none }}", HERE) == "ab"


def test_the_last_line_end_stays() -> None:
    assert RENDERER.text("a {{ var('word') }}\n", HERE) == "a x\n"
