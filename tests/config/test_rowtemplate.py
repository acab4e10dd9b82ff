"""Templates over rows: what they read, what counts of them, and what they refuse to print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bqbuild.config.macros import read_macros
from bqbuild.config.mistakes import Mistakes
from bqbuild.config.rowtemplate import RenderError, RowTemplate, RowTemplates
from bqbuild.config.sandbox import TemplateEnvironment
from bqbuild.config.variables import Variables
from bqbuild.core.errors import Where
from bqbuild.core.hashing import digest


def library(macros: str = "", others: Mapping[str, str] | None = None) -> tuple[RowTemplates, Mistakes]:
    mistakes = Mistakes()
    sources = {"project/macros/m.jinja": macros} if macros else {}
    found = read_macros(sources, TemplateEnvironment(null_is_error=False), mistakes)
    variables = Variables({"shots": 2})
    templates = RowTemplates(variables, found)
    for name, source in (others or {}).items():
        templates.add(name, source, Where(f"prompts/{name}.md", 1), mistakes, roles=False)
    return templates, mistakes


def template(source: str, macros: str = "", others: Mapping[str, str] | None = None) -> RowTemplate:
    templates, mistakes = library(macros, others)
    assert templates.add("it", source, Where("prompts/it.md", 1), mistakes, roles=False), mistakes.errors
    found = templates.row_template("it", mistakes)
    assert mistakes.errors == []
    return found


def complaints(source: str, macros: str = "", others: Mapping[str, str] | None = None) -> list[str]:
    templates, mistakes = library(macros, others)
    if templates.add("it", source, Where("prompts/it.md", 1), mistakes, roles=False):
        templates.row_template("it", mistakes)
    return [str(error).replace("\n  hint: ", " | ") for error in mistakes.errors]


def columns(source: str, **options: Any) -> set[str]:
    return set(template(source, **options).columns)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ a }} {{ b.c }} {{ d[e] }}", {"a", "b", "d", "e"}),
        ("{% if a %}{{ b }}{% else %}{{ c }}{% endif %}", {"a", "b", "c"}),
        ("{% for x in a %}{{ x }}{{ loop.index }}{% endfor %}", {"a"}),
        ("{% set x = a %}{{ x }}", {"a"}),
        ("{{ x }}{% set x = a %}{{ x }}", {"a", "x"}),
        ("{% macro m(p) %}{{ p }}{{ q }}{% endmacro %}{{ m(a) }}", {"a", "q"}),
        ("{{ a | default(b) }}{{ range(3) | list }}{{ var('shots') }}", {"a", "b"}),
        ("{% with x = a %}{{ x }}{% endwith %}{{ b if c is defined }}", {"a", "b", "c"}),
        ("{% raw %}{{ a }}{% endraw %}{# {{ b }} #}", set()),
        ("plain text", set()),
    ],
)
def test_columns_are_what_the_template_reads_of_a_row(source: str, expected: set[str]) -> None:
    assert columns(source) == expected


def test_a_column_knows_the_line_of_its_first_reading() -> None:
    found = template("{# a\ncomment #}\n{{ b }}\n{{ a }} {{ b }}\n").columns
    assert found == {"b": Where("prompts/it.md", 3), "a": Where("prompts/it.md", 4)}


def test_columns_of_included_templates_count() -> None:
    others = {"part": "{{ a }}{{ x }}", "deep": "{% include 'part' %}{{ b }}"}
    assert columns("{% set x = 1 %}{% include 'deep' %}", others=others) == {"a", "b"}
    assert columns("{% include 'part.md' %}", others=others) == {"a", "x"}


def test_columns_of_an_imported_template_are_a_mistake_without_the_row() -> None:
    others = {"part": "{% macro m() %}{{ a }}{% endmacro %}"}
    assert complaints("{% import 'part' as p %}{{ p.m() }}", others=others) == [
        "prompts/it.md:1: 'part' reads a, but is taken without the row | add `with context`"
    ]
    found = template("{% import 'part' as p with context %}{{ p.m() }}", others=others)
    assert set(found.columns) == {"a"}
    assert found.render({"a": "x"}) == "x"


def test_a_template_may_extend_another() -> None:
    others = {"base": "Start {% block middle %}{{ a }}{% endblock %} end"}
    found = template("{% extends 'base' %}{% block middle %}{{ b }}{% endblock %}", others=others)
    assert found.render({"a": 1, "b": 2}) == "Start 2 end"


def test_a_template_that_includes_itself_is_read_to_its_end() -> None:
    found = template("{{ a }}{% if b %}{% include 'it' %}{% endif %}")
    assert set(found.columns) == {"a", "b"}
    with pytest.raises(RenderError, match="recursion"):
        found.render({"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ env_var('X') }}", "env_var() does not work in a prompt | use var(), set in project/bqbuild.yml"),
        ("{{ ref('x') }}", "ref() is for SQL models only"),
        ("{{ a | uper }}", "unknown filter 'uper' (did you mean 'upper'?)"),
        ("{{ a is strng }}", "unknown test 'strng' (did you mean 'string'?)"),
        ("{{ shots_of(1) }}", "unknown function or macro 'shots_of'"),
        ("{{ rang(1) }}", "unknown function or macro 'rang' (did you mean 'range'?)"),
        ("{% include 'nope' %}", "there is no prompt 'nope'"),
        ("{% include x %}", "include needs the name of one prompt as text"),
        ("{{ var(x) }}", "var() needs the name of a variable as text"),
        ("{{ var('shot') }}", "there is no variable 'shot' (did you mean 'shots'?)"),
        ("{{ a }", "broken Jinja: unexpected '}'"),
        ("{% if a %}", "broken Jinja: Unexpected end of template"),
        ("{% bogus %}", "broken Jinja: Encountered unknown tag 'bogus'"),
        ("{# open", "broken Jinja: Missing end of comment tag"),
        ("{{ " + "(" * 5000 + " }}", "broken Jinja: nested too deeply"),
        ("{{ lipsum() }}", "unknown function or macro 'lipsum'"),
        ("{{ [1, 2] | random }}", "unknown filter 'random'"),
    ],
)
def test_mistakes_are_found_before_anything_runs(source: str, expected: str) -> None:
    [found] = complaints("line one\n" + source)
    assert expected in found
    assert found.startswith("prompts/it.md:")


def test_a_variable_with_a_default_may_be_missing() -> None:
    found = template("{{ var('none', 'x') }}{{ var('shots') }}")
    assert found.variables == {"none", "shots"}
    assert found.render({}) == "x2"


NULL = [
    "{{ a }}",
    "{{ a | upper }}",
    "{{ a | trim }}",
    "{{ a | string }}",
    "{{ 'x' ~ a }}",
    "{{ [a, 'x'] | join(',') }}",
    "{{ '%s' % a }}",
    "{{ '%s and %s' % (b, a) }}",
    "{{ '%s' | format(a) }}",
    "{{ '{}'.format(a) }}",
    "{{ a | replace('x', 'y') }}",
    "{{ a | truncate(3) }}",
    "{% for x in [1, 2] %}{{ a }}{% endfor %}",
    "{% set x = a %}{{ x }}{{ a }}",
]


@pytest.mark.parametrize("source", NULL)
def test_printing_null_is_an_error_of_the_row(source: str) -> None:
    with pytest.raises(RenderError) as caught:
        template("first\n" + source).render({"a": None, "b": "x"})
    assert caught.value.message == "'a' is NULL"
    assert caught.value.where == Where("prompts/it.md", 2)
    assert "default" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ a | default('x') }}", "x"),
        ("{{ a | d('x') }}", "x"),
        ("{{ a | default(b, true) }}", "y"),
        ("{{ a or 'x' }}", "x"),
        ("{% if a %}{{ a }}{% endif %}", ""),
        ("{{ a if a }}", ""),
        ("{{ 'none' if a is none else a }}", "none"),
        ("{{ a | tojson }}", "null"),
        ("{{ a is none }}", "True"),
    ],
)
def test_null_may_be_looked_at(source: str, expected: str) -> None:
    assert template(source).render({"a": None, "b": "y"}) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ a.nope.deeper }}", "has no attribute 'nope'"),
        ("{{ a + 1 }}", "can only concatenate str"),
        ("{{ missing }}", "the row has no column 'missing'"),
        ("{{ a.__class__ }}", "unsafe"),
        ("{{ a.format.__globals__ }}", "unsafe"),
        ("{{ 'x' * 99999999999 }}", "too long"),
        ("{{ 'x'.center(99999999999) }}", "too long"),
        ("{{ 'x' | center(99999999999) }}", "too long"),
        ("{{ '%099999999999d' % 1 }}", "too large"),
        ("{{ '{:99999999999}'.format(1) }}", "too large"),
        ("{{ 9 ** (9 ** 9) }}", "too large"),
        ("{% for x in range(999999999) %}{% endfor %}", "Range too big"),
        (
            "{% set x = namespace(v='xxxxxxxx') %}{% for i in range(40) %}{% set x.v = x.v ~ x.v %}{% endfor %}",
            "too long",
        ),
        ("{% set x = namespace(v=[1]) %}{% for i in range(40) %}{% set x.v = x.v + x.v %}{% endfor %}", "too long"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ [].append(1) }}", "unsafe"),
    ],
)
def test_a_template_that_fails_is_an_error_of_the_row(source: str, message: str) -> None:
    with pytest.raises(RenderError, match=message) as caught:
        template("first\n" + source).render({"a": "text"})
    assert caught.value.where is not None
    assert caught.value.where.file == "prompts/it.md"


def test_an_error_in_an_included_template_names_its_own_file() -> None:
    others = {"part": "one\n\n{# c #}\n{{ a }}\n"}
    with pytest.raises(RenderError) as caught:
        template("{% include 'part' %}", others=others).render({"a": None})
    assert caught.value.where == Where("prompts/part.md", 4)


def test_rendering_sees_only_the_columns_that_are_read() -> None:
    found = template("{{ range(2) | list }} {{ a }}")
    assert found.render({"a": "x", "range": "no", "b": "{{ a }}"}) == "[0, 1] x"


def test_values_are_never_templates() -> None:
    assert template("{{ a }}").render({"a": "{{ 7 * 7 }}{% raw %}"}) == "{{ 7 * 7 }}{% raw %}"


def test_json_is_not_escaped_for_html() -> None:
    assert template("{{ a | tojson }}").render({"a": "<é & 'x'>"}) == "\"<é & 'x'>\""


def test_tags_on_their_own_lines_leave_no_blank_lines() -> None:
    source = "a\n{% if true %}\n  b\n{% endif %}\nc\n"
    assert template(source).render({}) == "a\n  b\nc\n"


MACROS = (
    "{% set dot = '.' %}{% macro shout(x) %}{{ x | upper }}{{ dot }}{% endmacro %}\n"
    "{% macro twice(x) %}{{ shout(x) }}{{ shout(x) }}{% endmacro %}"
)


def test_macros_of_the_project_work_by_name() -> None:
    found = template("{{ twice(a) }}", macros=MACROS)
    assert found.render({"a": "x"}) == "X.X."
    assert set(found.columns) == {"a"}


def test_a_macro_is_part_of_the_identity_of_what_calls_it() -> None:
    source = "{{ twice(a) }}"
    before = digest(template(source, macros=MACROS).identity)
    assert digest(template(source, macros=MACROS.replace("upper", "lower")).identity) != before
    assert digest(template(source, macros=MACROS.replace("'.'", "'!'")).identity) != before
    assert digest(template(source, macros="{# c #}" + MACROS + "{% macro other() %}{% endmacro %}").identity) == before
    plain = digest(template("{{ a }}", macros=MACROS).identity)
    assert digest(template("{{ a }}", macros=MACROS.replace("upper", "lower")).identity) == plain


def test_a_macro_that_reads_a_column_is_a_mistake() -> None:
    assert complaints("{{ m() }}", macros="\n{% macro m() %}{{ topic }}{% endmacro %}") == [
        "project/macros/m.jinja:2: a macro reads 'topic', which is not an argument"
        " | a macro sees its arguments only: hand the column over"
    ]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("a {{ b }}", "a {{b}}", True),
        ("a {{ b }}", "a {# c #} {{ b }}", True),
        ("a\n{% if b %}\nx\n{% endif %}", "a\n{%- if b -%}\nx\n{% endif %}", False),
        ("{% if b %}x{% endif %}", "{%   if   b   %}x{%   endif   %}", True),
        ("a{% raw %}b{% endraw %}c", "abc", True),
        ("{{ f('x') if f }}".replace("f('x')", "b"), "{{ b if f }}", True),
        ("a {{ b }}", "a  {{ b }}", False),
        ("{{ a | upper }}", "{{ a | lower }}", False),
        ("{{ 1 }}", "{{ 1.0 }}", False),
        ("{{ 'a' }}", '{{ "a" }}', True),
        ("{% if a %}x{% else %}y{% endif %}", "{% if a %}xy{% endif %}", False),
    ],
)
def test_form_is_not_part_of_the_identity(one: str, other: str, is_same: bool) -> None:
    assert (digest(template(one).identity) == digest(template(other).identity)) is is_same


def test_what_is_included_is_part_of_the_identity() -> None:
    source = "{% include 'part' %}"
    before = digest(template(source, others={"part": "{{ a }} x"}).identity)
    assert digest(template(source, others={"part": "{{ a }} {# c #}x"}).identity) == before
    assert digest(template(source, others={"part": "{{ a }} y"}).identity) != before
