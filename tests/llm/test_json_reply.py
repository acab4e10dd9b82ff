"""JSON as LLMs write it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqbuild.llm.json_reply import Number, read_json, restore_latex


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": "b"}', [{"a": "b"}]),
        ("  [1, 2]\n", [["1", "2"]]),
        ('Sure!\n```json\n{"a": "b"}\n```\nAnything else?', [{"a": "b"}]),
        ('{"a": "b",}', [{"a": "b"}]),
        ('{"a": ["b", "c",],}', [{"a": ["b", "c"]}]),
        ("{'a': 'it\\'s', 'b': True, 'c': None}", [{"a": "it's", "b": True, "c": None}]),
        ('{"a": "two\nlines"}', [{"a": "two\nlines"}]),
        ("{\u201ca\u201d: \u201cb\u201d}", [{"a": "b"}]),
        ('{"a": "He said "hi", then left", "b": "c"}', [{"a": 'He said "hi", then left', "b": "c"}]),
        ('{"a": "b" // why\n}', [{"a": "b"}]),
        ('{"a": 1}\n{"a": 2}', [{"a": "1"}, {"a": "2"}]),
        ('{"a": "\\ud83d\\ude00"}', [{"a": "\U0001f600"}]),
        ('"just a string"', ["just a string"]),
        ("no JSON at all, but {braces} and \\frac{1}{2}", []),
        ('{"a": "cut off', []),
        ('{"a": NaN}', []),
        ("", []),
    ],
)
def test_json_is_found_as_llms_write_it(text: str, expected: list[Any]) -> None:
    assert read_json(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'{"a": "\(x\) and \sqrt{2}"}', r"\(x\) and \sqrt{2}"),
        (
            r'{"a": "\frac{1}{2} \beta \times \text{m} \theta \rho \nabla"}',
            r"\frac{1}{2} \beta \times \text{m} \theta \rho \nabla",
        ),
        (r'{"a": "\underline{x} \u00e9"}', "\\underline{x} \u00e9"),
        (r'{"a": "tab\there\nnext\r\nline"}', "tab\there\nnext\r\nline"),
        (r'{"a": "\\frac{1}{2}"}', r"\frac{1}{2}"),
    ],
    ids=["no escapes", "swallowed escapes", "u without digits", "real escapes", "escaped properly"],
)
def test_latex_in_json_survives(text: str, expected: str) -> None:
    assert restore_latex(read_json(text))[0]["a"] == expected


def test_numbers_keep_the_form_in_which_they_were_written() -> None:
    (value,) = read_json('{"a": 1.10, "b": 12345678901234567890123, "c": -0}')
    assert value == {"a": "1.10", "b": "12345678901234567890123", "c": "-0"}
    assert all(isinstance(item, Number) for item in value.values())


HOSTILE = {
    "lists": "[" * 200_000,
    "objects": "{" * 200_000,
    "nested objects": '{"a":' * 50_000,
    "nested strings": "{'a':'" * 50_000,
    "quotation marks": '{"a": "' + '" ' * 100_000,
    "escapes": '{"a":"' + "\\u" * 100_000,
    "comments": "[//" * 50_000,
    "digits": "9" * 200_000,
    "spaces": "[" + " " * 200_000,
    "closed lists": "[" * 50_000 + "]" * 50_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_neither_crashes_nor_hangs(text: str) -> None:
    assert isinstance(read_json(text), list)  # read quadratically, some of these would take minutes


@given(st.text(alphabet="{}[]\",:\\'/ \nabnu01\u201c\u201d", max_size=60))
def test_any_text_is_read_without_an_exception(text: str) -> None:
    assert isinstance(read_json(text), list)


json_values = st.recursive(
    st.none() | st.booleans() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values))
def test_proper_json_is_read_exactly(value: dict[str, Any]) -> None:
    assert read_json(json.dumps(value)) == [value]
    assert read_json(f"Here it is: {json.dumps(value, indent=1)} Done.") == [value]
