"""Strict YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bqbuild.config.yamlfile import parse_yaml, plain, read_yaml
from bqbuild.core.errors import ProjectError, Where


def value(text: str) -> Any:
    return parse_yaml(text, "f.yml").value


def error(text: str) -> str:
    with pytest.raises(ProjectError) as caught:
        value(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("~", None),
        ("null", None),
        ("-3", -3),
        ("0x1F", 31),
        ("0o17", 15),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("'1'", "1"),
        ("+", "+"),
        (".", "."),
        ("!!str 1", "1"),
        ("!!int '1'", 1),
        ("!!float 1", 1.0),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, expected: object) -> None:
    found = value(f"a: {text}")["a"]
    assert found == expected
    assert type(plain(found)) is type(expected)


@pytest.mark.parametrize("text", ["1.10", "007", "1e3", "0x1F", "+5", "2.0e+1"])
def test_a_number_keeps_the_text_that_it_was_written_as(text: str) -> None:
    assert str(value(f"a: {text}")["a"]) == text


@pytest.mark.parametrize("text", ["1", "-7", "2.5", "0.1"])
def test_a_number_that_python_writes_the_same_way_is_a_plain_number(text: str) -> None:
    assert type(value(f"a: {text}")["a"]) in (int, float)


def test_keys_are_text() -> None:
    assert value("{1: a, true: b, 1.0: c}") == {"1": "a", "true": "b", "1.0": "c"}


def test_an_empty_file_has_no_value() -> None:
    assert value("") is None
    assert value("# only a comment\n") is None


def test_a_duplicate_key_names_both_lines() -> None:
    assert error("a: 1\nb: 2\na: 3\n") == "f.yml:3:1: duplicate key 'a'\n  hint: it stands in line 1 already"


def test_a_duplicate_key_deep_inside_is_found() -> None:
    assert "f.yml:1:13: duplicate key 'x'" in error("a: [{x: 1,  x: 2}]")


def test_aliases_and_merge_keys_work() -> None:
    text = "base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\nmany:\n  <<: [*b, {z: 1}]\n"
    assert value(text)["other"] == {"x": 1, "y": 3}
    assert value(text)["many"] == {"x": 1, "y": 2, "z": 1}


def test_aliases_that_explode_are_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    assert "holds more than 1000000 values" in error("\n".join(lines))


def test_an_alias_of_what_it_stands_in_is_refused() -> None:
    assert error("a: &a [*a]") == "f.yml:1:4: an alias stands inside what it names"


@pytest.mark.parametrize("depth", [200, 5_000, 100_000])
def test_deep_nesting_is_an_error_and_not_a_crash(depth: int) -> None:
    assert "f.yml" in error("[" * depth + "]" * depth)
    assert "f.yml" in error("{a: " * depth + "}" * depth)


def test_aliases_that_nest_deeply_are_refused() -> None:
    lines = ["a0: &a0 [x]", *(f"a{number}: &a{number} [*a{number - 1}]" for number in range(1, 2000))]
    assert "nested deeper than 100 levels" in error("\n".join(lines))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n\t- 1\n", "f.yml:2:1: broken YAML"),
        ("a: [1\n", "f.yml:2:1: broken YAML"),
        ("a: 1\n b: 2\n", "f.yml:2:3: broken YAML"),
        ("a: {{ var('x') }}\n", "f.yml:1:5: a key must be text"),
        ("a: !!python/object:os.system x\n", "unknown tag"),
        ("a: !mine x\n", "unknown tag !mine"),
        ("a: \x07\n", "a character that YAML does not allow"),
        ("a: *nope\n", "undefined alias"),
        ("--- a\n--- b\n", "several YAML documents"),
        ("? [a]\n: b\n", "a key must be text"),
        ("a: !!int x\n", "'x' is not a int"),
    ],
)
def test_broken_yaml_is_told_with_its_place(text: str, expected: str) -> None:
    assert expected in error(text)


def test_a_tab_gets_a_hint() -> None:
    assert "indent with spaces" in error("a:\n\t- 1\n")


def test_unquoted_jinja_gets_a_hint() -> None:
    assert "in quotes" in error("a: {{ x }}\n")


def test_broken_utf_8_names_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(ProjectError) as caught:
        read_yaml(path, "f.yml")
    assert caught.value.where == Where("f.yml", 2, 7)


def test_a_byte_order_mark_and_dos_line_ends_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: |\r\n  x\r\n  y\r\n")
    assert read_yaml(path, "f.yml").value == {"a": 1, "b": "x\ny\n"}


def test_places_are_those_of_keys_items_and_values() -> None:
    document = parse_yaml("a:\n  - b: 1\n    c:\n      d: x\ne: |\n  text\n", "f.yml")
    assert document.where(("a", 0, "c", "d")) == Where("f.yml", 4, 7)
    assert document.value_where(("a", 0, "c", "d")) == Where("f.yml", 4, 10)
    assert document.where(("a", 0)) == Where("f.yml", 2, 5)
    assert document.text_where(("e",)) == Where("f.yml", 6)
    assert document.where(("a", 0, "nope")) == Where("f.yml", 2, 5)
    assert document.places(("a", 0)) == {
        "b": Where("f.yml", 2, 5),
        "c": Where("f.yml", 3, 5),
        "c.d": Where("f.yml", 4, 7),
    }
