"""Predicates and orders in YAML: which spellings are one, and how they are shown."""

from __future__ import annotations

import pytest

from bqbuild.graph.ordering import check_order
from bqbuild.graph.predicates import parse_predicate


def identity(text: str) -> str:
    return parse_predicate(text).identity


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a > 1 and b < 2", "b < 2 AND a>1"),
        ("a > 1", "(a) > 1 -- why"),
        ("a > 1", '"a" > 1'),
        ("length(a) > 1", "LENGTH( a ) > 1"),
        ("a is not null", "A IS NOT NULL".replace("A", "a", 1)),
        ("a = 1 or (b = 2 or c = 3)", "(a = 1 or b = 2) or c = 3"),
    ],
)
def test_another_spelling_of_a_predicate_is_the_same(one: str, other: str) -> None:
    assert identity(one) == identity(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a > 1", "a >= 1"),
        ("a = 'x'", "a = 'X'"),
        ("a = 'x'", 'a = "x"'),
        ("(a or b) and c", "a or b and c"),
        ("a = true", 'a = "true"'),
        ('"TRUE"', "TRUE"),
        ('"a b" = 1', '"a  b" = 1'),
        ("not (a and b)", "not a and b"),
    ],
)
def test_another_meaning_of_a_predicate_is_another(one: str, other: str) -> None:
    assert identity(one) != identity(other)


def test_a_predicate_is_shown_as_people_write_it() -> None:
    assert identity('LENGTH(question)>3 AND "a b" IS NULL') == '"a b" IS NULL AND length(question) > 3'


def test_an_order_is_known_by_what_it_means() -> None:
    assert check_order("score  DESC, (id)") == check_order('"score" desc, id asc')
    assert check_order("score desc") != check_order("score")
    assert check_order("score, id") != check_order("id, score")
    assert check_order("score nulls last") != check_order("score nulls first")
