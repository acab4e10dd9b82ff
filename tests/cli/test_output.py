from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from bqbuild.cli.output import json_text, print_table, safe, value_text


def test_json_holds_whatever_a_table_can_hold() -> None:
    row = {
        "not a number": float("nan"),
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "decimal": Decimal("1.10"),
        "bytes": b"\x00\xff",
        "surrogate": "a\ud800b",
        "list": [{"deep": None}, (1, True)],
    }
    assert json.loads(json_text(row)) == {
        "not a number": None,
        "time": "2026-01-02T00:00:00+00:00",
        "decimal": "1.10",
        "bytes": "00ff",
        "surrogate": "a?b",
        "list": [{"deep": None}, [1, True]],
    }


@pytest.mark.parametrize("character", ["\x1b", "\x9b", "\r", "\x08", "\u202e", "\u2028", "\ud800"])
def test_characters_that_move_or_hide_text_are_written_out(character: str) -> None:
    assert safe(f"a{character}b") == f"a\\u{ord(character):04x}b"


def test_ordinary_text_stays_as_it_is() -> None:
    text = "naïve 漢字 🙂\n\ttabbed"
    assert safe(text) == text


def test_values_read_as_people_write_them() -> None:
    assert value_text(None) == "NULL"
    assert value_text("text") == "text"
    assert value_text(["a", 1]) == '["a", 1]'
    assert value_text(0.5) == "0.5"


def test_columns_line_up_whatever_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a", "b"], [{"a": "漢字", "b": 1}, {"a": "x", "b": 22}])
    assert capsys.readouterr().out == "a     b\n----  --\n漢字  1\nx     22\n"


def test_long_values_are_cut_and_lines_joined(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a"], [{"a": "one\ntwo " + "x" * 100}])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("one⏎two xxx")
    assert last.endswith("…")
    assert len(last) == 72


def pretend_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make stdout, as it is captured now, a terminal of 40 columns."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")


def test_a_terminal_folds_long_values(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_terminal(monkeypatch)
    print_table(["a", "b"], [{"a": "x", "b": "word " * 20}], color=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 4
    assert all(len(line) <= 40 for line in lines)


def test_a_terminal_too_narrow_for_the_columns_gets_a_value_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_terminal(monkeypatch)
    print_table(["one", "two", "three"], [{"one": "x" * 30, "two": "y\nz", "three": "z" * 30}], color=False)
    assert capsys.readouterr().out.splitlines() == [
        "row 1",
        f"  one    {'x' * 30}",
        "  two    y",
        "         z",
        f"  three  {'z' * 30}",
    ]
