"""Comments and role lines in the text of a template."""

from __future__ import annotations

import pytest

from bqbuild.config.templatetext import Piece, pieces, prepare

SEVERAL_LINES = """\
Write one question.
{% for x in [1, 2] %}
  Item {{ x }} of {{ {'a': '}}'}['a'] }}
{% endfor %}
{% if true %}yes{% else %}no{% endif %}, done.

Last line {{ "with {# no comment #}" }}.
"""


def text(source: str) -> str:
    return prepare(source, roles=False).source


@pytest.mark.parametrize(
    ("commented", "plain"),
    [
        ("a\n{# own line #}\nb\n", "a\nb\n"),
        ("a\n  {# own line, indented #}  \nb\n", "a\nb\n"),
        ("a\n{# over\nthree\nlines #}\nb\n", "a\nb\n"),
        ("a {# end of line #}\nb\n", "a\nb\n"),
        ("a{# end of line #}\nb\n", "a\nb\n"),
        ("a {# end of line #}  \nb\n", "a  \nb\n".replace("  ", "")),
        ("a {# mid #} b\n", "a b\n"),
        ("a {# mid #}b\n", "a b\n"),
        ("a{# mid #} b\n", "a b\n"),
        ("a{# mid #}b\n", "ab\n"),
        ("{# start #} a\n", "a\n"),
        ("{# start #}a\n", "a\n"),
        ("  {# start #} a\n", "  a\n"),
        ("a {# end of file #}", "a"),
        ("a\n{# end of file #}", "a\n"),
        ("a\n{# one #} {# two #}\nb", "a\nb"),
        ("a {# one #} {# two #}\nb", "a\nb"),
        ("{# only #}", ""),
        ("{% if x %}{# c #}\nb\n{% endif %}", "{% if x %}\nb\n{% endif %}"),
        ("a {#- tight -#} b", "ab"),
        ("a\n{# c #}{{ x }}\n", "a\n{{ x }}\n"),
        ("{{ x }} {# c #}\nb", "{{ x }}\nb"),
    ],
)
def test_a_comment_leaves_the_text_as_if_it_were_not_there(commented: str, plain: str) -> None:
    assert text(commented) == plain


def test_what_only_looks_like_a_comment_stays() -> None:
    for source in ("{{ '{# x #}' }}", "{% raw %}{# x #}{% endraw %}", "{{ {'a': 1} }}{# c"):
        assert text(source) == source


def test_a_comment_anywhere_between_words_changes_nothing() -> None:
    parts = list(pieces(SEVERAL_LINES))
    position = 0
    tried = 0
    for part in parts:
        for offset in range(len(part.text) + 1) if part.kind == "text" else (0,):
            at = position + offset
            assert text(SEVERAL_LINES[:at] + "{# c #}" + SEVERAL_LINES[at:]).rstrip() == SEVERAL_LINES.rstrip() or (
                # at a line's own blanks a comment cannot tell which side they belong to
                SEVERAL_LINES[at : at + 1] == " " or SEVERAL_LINES[max(at - 1, 0)] in " \n"
            )
            tried += 1
        position += len(part.text)
    assert tried > 60


def test_a_comment_line_anywhere_changes_nothing() -> None:
    lines = SEVERAL_LINES.split("\n")
    for number in range(len(lines)):
        commented = "\n".join([*lines[:number], "  {# c #}", *lines[number:]])
        assert text(commented) == SEVERAL_LINES
        if lines[number]:
            commented = "\n".join([*lines[:number], lines[number] + "  {# c\nd #}", *lines[number + 1 :]])
            assert text(commented) == SEVERAL_LINES


def test_lines_are_those_of_the_file() -> None:
    prepared = prepare("a\n{# x\ny #}\nb {# z\n #}\nc\n", 10)
    assert prepared.source == "a\nb\nc\n"
    assert [prepared.line(number) for number in (1, 2, 3)] == [10, 13, 15]
    assert prepare("a\nb", 5).line(2) == 6


def test_pieces_put_together_are_the_source() -> None:
    for source in (SEVERAL_LINES, "{{ a", "{% raw %}", "{#", "}}", "{{ '}}' }}x", "{{ [1, {2: 3}] }}"):
        assert "".join(piece.text for piece in pieces(source)) == source


def test_a_brace_in_a_tag_does_not_end_it() -> None:
    assert list(pieces("{{ {'a': {'b': 1}} }}x"))[-1] == Piece("text", "x")


@pytest.mark.parametrize(
    ("source", "roles"),
    [
        ("user:\nhi", 1),
        ("user: hi", 1),
        ("system: a\nuser: b\nassistant: c\n", 3),
        (" user: hi", 0),
        ("user:hi", 0),
        ("the user: hi", 0),
        ("User: hi", 0),
        ("{% if x %}user: hi{% endif %}", 0),
        ("{% if x %}\nuser: hi\n{% endif %}", 1),
        ("{{ 'user:' }}\nuser: {{ x }}", 1),
        ("{% raw %}\nuser: x\n{% endraw %}", 0),
        ("{# comment #}user: hi", 1),
        ("{# comment #}\nuser: hi", 1),
    ],
)
def test_role_lines_start_with_a_role_at_the_start_of_a_line(source: str, roles: int) -> None:
    assert prepare(source).source.count("_bq_role(") == roles


def test_an_include_keeps_the_end_of_its_line() -> None:
    assert prepare("in JSON.{% include 'a' %}\nText").source == "in JSON.{% include 'a' +%}\nText"
    assert prepare("{% include 'a' -%}\nText").source == "{% include 'a' -%}\nText"
    quoted = "{% if x %}\n{{ '{% include' }}\n{% endif %}"
    assert prepare(quoted).source == quoted
