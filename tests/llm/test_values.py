"""From what a reply holds to the values of columns."""

from __future__ import annotations

from typing import Any

import pytest

from bqbuild.config.specs import OutputColumn
from bqbuild.llm.json_reply import Number
from bqbuild.llm.values import Unusable, column_value, match_label, storable, value_type


def number(text: str) -> Number:
    return Number(text)


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("string", "x", "x"),
        ("str", number("1.10"), "1.10"),
        ("text", True, "true"),
        ("int", number("3"), 3),
        ("integer", "3", 3),
        ("bigint", number("3.0"), 3),
        ("float", number("0.5"), 0.5),
        ("double", "-1e3", -1000.0),
        ("bool", True, True),
        ("boolean", "Yes.", True),
        ("bool", number("0"), False),
        ("list<string>", ["a", number("1")], ["a", "1"]),
        ("int[]", [number("1"), "2"], [1, 2]),
        ("list<list<int>>", [[number("1")]], [[1]]),
        ("list<string>", "a", ["a"]),
        ("json", {"a": [number("1"), number("1e999"), None]}, '{"a":[1,"1e999",null]}'),
        ("varchar", "a\x00b\ud800", "a\ufffdb\ufffd"),
    ],
)
def test_values_become_what_the_column_wants(type_: str, value: Any, expected: Any) -> None:
    result = column_value("c", OutputColumn(type=type_), value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("string", None),
        ("string", {"a": "b"}),
        ("string", ["a"]),
        ("int", number("3.5")),
        ("int", True),
        ("int", "three"),
        ("int", number("9" * 19)),
        ("int", number("9" * 5000)),
        ("int", ""),
        ("float", number("1e999")),
        ("float", "nan"),
        ("float", "1_000"),
        ("bool", "maybe"),
        ("list<int>", ["a"]),
        ("list<string>", {"a": 1}),
    ],
)
def test_what_a_column_cannot_hold_is_unusable(type_: str, value: Any) -> None:
    with pytest.raises(Unusable, match="column `c` is") as caught:
        column_value("c", OutputColumn(type=type_), value)
    assert caught.value.reason == "unparsable"


def test_a_scale_makes_integers_and_values_make_texts() -> None:
    assert column_value("c", OutputColumn(scale=(1, 5)), number("3")) == 3
    assert column_value("c", OutputColumn(values=["1", "2"]), number("2")) == "2"
    assert column_value("c", OutputColumn(type="int", values=["1", "2"]), "2") == 2
    assert column_value("c", OutputColumn(type="list<string>", values=["red", "blue"]), ["Red"]) == ["red"]


def test_a_label_outside_the_set_is_unusable_and_the_set_is_named() -> None:
    with pytest.raises(Unusable, match="not one of 1, 2, 3"):
        column_value("c", OutputColumn(scale=(1, 3)), number("7"))


LEVELS = ("1", "2", "3", "4", "5")
FIELDS = ("science", "computer science", "math")


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("3", LEVELS, "3"),
        ("**3**", LEVELS, "3"),
        ("3.0", LEVELS, "3"),
        ("Difficulty: 3", LEVELS, "3"),
        ("3/5", LEVELS, "3"),
        ("I give it 4 out of 5.", LEVELS, "4"),
        ("2\n\nBecause it needs 4 steps.", LEVELS, "2"),
        ("It has 4 steps.\nAnswer: 2", LEVELS, "2"),
        ("3.5", LEVELS, None),
        ("3 or 4", LEVELS, None),
        ("10", LEVELS, None),
        ("-3", LEVELS, None),
        ("", LEVELS, None),
        ("MATH.", FIELDS, "math"),
        ("This is about computer science", FIELDS, "computer science"),
        ("science, math", FIELDS, None),
        ("It is not math", FIELDS, None),
        ("Math: because science needs it", FIELDS, "math"),
        ("mathematics", FIELDS, None),
        ("\u96be\u5ea6\uff1a\u56f0\u96be\u3002", ("\u56f0\u96be", "\u7b80\u5355"), "\u56f0\u96be"),
        ("\u8fd9\u4e2a\u9898\u5f88\u7b80\u5355", ("\u56f0\u96be", "\u7b80\u5355"), "\u7b80\u5355"),
        ("C++", ("C", "C++"), "C++"),
    ],
)
def test_a_label_is_recognised_only_where_it_is_unambiguous(
    text: str, labels: tuple[str, ...], expected: str | None
) -> None:
    assert match_label(text, labels) == expected


def test_types_that_a_reply_cannot_make_are_named() -> None:
    with pytest.raises(ValueError, match="'blob' is no type"):
        value_type("blob")


def test_storable_text_keeps_everything_else() -> None:
    assert storable("\t\u00e4\U0001f600\n\x00") == "\t\u00e4\U0001f600\n\ufffd"
