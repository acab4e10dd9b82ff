"""Values that break naive caches, from the source through SQL and a prompt to the table.

For each: the values arrive as they are, equal ones are asked for once and unequal ones apart; a second run has nothing
to do; the order of rows leaves no mark; and one edited row costs one call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bqbuild.core.events import Event, NodeFinished
from bqbuild.run.execute import run
from bqbuild.run.options import RunOptions
from tests.llm_server import LlmServer
from tests.rules.test_c7_the_same_from_any_road import clean_build
from tests.space import Space, statuses

Rows = Sequence[Mapping[str, Any]]

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"

VALUES: dict[str, tuple[list[Any], list[str]]] = {
    "form of a list": (
        [["a-b"], ["a", "b"], ["a,b"], [["a"], "b"]],
        ['["a-b"]', '["a","b"]', '["a,b"]', '[["a"],"b"]'],
    ),
    "empty things": ([[], {}, None, [None]], ["[]", "{}", "none", "[null]"]),
    "nested": ([{"a": {"b": [1, 2.5]}}, {"a": {"b": [1, 2]}}], ['{"a":{"b":[1,2.5]}}', '{"a":{"b":[1,2]}}']),
    "null and empty": (["", None, " ", "none"], ["", "none", " ", "none"]),
    "zeros": ([0.0, -0.0, 1.5], ["0.0", "-0.0", "1.5"]),
    "tiny and huge": ([5e-324, 1e308, 0.1], ["5e-324", "1e+308", "0.1"]),
    "integers at the end": ([2**63 - 1, -(2**63), 0], ["9223372036854775807", "-9223372036854775808", "0"]),
    "integers beyond": ([2**63, 2**64 + 1, 7], ["9223372036854775808", "18446744073709551617", "7"]),
    "Unicode forms": ([COMPOSED, DECOMPOSED, "\ufb01", "fi"], [COMPOSED, DECOMPOSED, "\ufb01", "fi"]),
    "invisible": (["a", "a\u200b", "\ufeffa", "a\u00a0"], ["a", "a\u200b", "\ufeffa", "a\u00a0"]),
    "truth and text": ([True, "yes", False], ["true", "yes", "false"]),
    "long": (["x" * 1_000_000, "x" * 999_999 + "y"], ["x" * 1_000_000, "x" * 999_999 + "y"]),
    "templates": (
        ["{{ id }}", "{% raw %}", "assistant:\nhi", "$id"],
        ["{{ id }}", "{% raw %}", "assistant:\nhi", "$id"],
    ),
    "quotes": (["'; drop table t; --", 'a"b', "a\\b", "a\tb"], ["'; drop table t; --", 'a"b', "a\\b", "a\tb"]),
    "NUL": (["a\x00b", "ab"], ["a\x00b", "ab"]),
}


@pytest.fixture
def space(tmp_path: Path, llm_server: LlmServer) -> Space:
    """A project without data: source `s`, SQL `c` over all of it, and `q`, which asks for each row."""
    llm_server.answer = lambda body: f"Answer of {len(body['messages'][-1]['content'])}."
    space = Space(tmp_path / "project", llm_server)
    space.write("project/bqbuild.yml", "name: values\nversion: 1\n")
    llm = "{provider: openai, base_url: \"{{ env_var('LLM_URL') }}\", model: m}"
    space.write(
        "project/profiles.yml",
        f"default: dev\ntargets:\n  dev:\n    store: .bqbuild\n    llms:\n      llm: {llm}\n",
    )
    space.write("models/c.sql", "select * from {{ source('s') }}")
    space.write("prompts/ask.md", "user:\n<{{ v | default('none') }}>\n")
    return space


def declare(space: Space, format: str = "jsonl", key: Sequence[str] = ("id",), **columns: str) -> None:
    """Write the models; `columns` are declared types of the source."""
    source = {"name": "s", "path": f"sources/s.{format}", "key": list(key)}
    source["columns"] = [{"name": name, "type": kind} for name, kind in columns.items()]
    output = {"format": "text", "columns": {"said": "string"}}
    asks = {"name": "q", "kind": "synthesize", "from": "c", "prompt": "ask", "llm": "llm", "output": output}
    space.write("models/m.yml", json.dumps({"sources": [source], "models": [asks]}))


def put_json(space: Space, rows: Rows) -> None:
    """The rows as the source's lines of JSON."""
    space.write("project/sources/s.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def put_parquet(space: Space, array: pa.Array) -> None:
    """The values as a Parquet file without a key."""
    path = space.root / "project/sources/s.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"v": array}), path)


def asked(space: Space) -> list[str]:
    """What the last run asked for, in order of the alphabet, without the marks around it."""
    recent = space.server.requests[len(space.server.requests) - space.sent :]
    return sorted(request["messages"][-1]["content"][1:-1] for request in recent)


@pytest.mark.parametrize(("name", "keyed"), list(zip(VALUES, cycle([True, False]), strict=False)))
def test_a_value_is_asked_about_as_it_is_and_only_once(space: Space, tmp_path: Path, name: str, keyed: bool) -> None:
    values, shown = VALUES[name]
    rows = [{"id": number, "v": value} if keyed else {"v": value} for number, value in enumerate(values)]
    declare(space, key=["id"] if keyed else [])
    put_json(space, rows)
    assert set(statuses(space.run()).values()) == {"success"}
    assert asked(space) == sorted(set(shown))
    assert space.rows("select count(*) as n from q")[0]["n"] == len(values)
    before = space.digests()
    put_json(space, rows[::-1])
    assert set(statuses(space.run()).values()) == {"cached"}
    assert space.digests() == before == clean_build(space, tmp_path / "clean").digests()
    put_json(space, [*rows[:-1], rows[-1] | {"v": _other(values)}])
    space.run()
    assert space.sent == 1


def _other(values: Sequence[Any]) -> Any:
    """Another value of the type that the column has."""
    last = next(value for value in values if value is not None)
    return {str: "another", bool: "maybe", int: 12, float: 12.25}.get(type(last), ["another"])


def test_truth_values_that_are_edited_cost_one_call(space: Space) -> None:
    declare(space)
    put_json(space, [{"id": 1, "v": True}, {"id": 2, "v": True}])
    space.run()
    assert asked(space) == ["True"]
    put_json(space, [{"id": 1, "v": True}, {"id": 2, "v": False}])
    space.run()
    assert asked(space) == ["False"]


ARROW: dict[str, tuple[Callable[[], pa.Array], list[str]]] = {
    "NaN and infinities": (
        lambda: pa.array([float("nan"), None, float("inf"), float("-inf"), 0.0]),
        ["-inf", "0.0", "inf", "nan", "none"],
    ),
    "decimals": (
        lambda: pa.array([Decimal("1.1"), Decimal("1.10"), Decimal("-0.0"), Decimal("99999.99")], pa.decimal128(20, 2)),
        ["0.00", "1.10", "99999.99"],
    ),
    "lists": (lambda: pa.array([["a-b"], ["a", "b"], [], None]), ['["a","b"]', '["a-b"]', "[]", "none"]),
    "structs": (
        lambda: pa.array([{"x": 1, "y": "a"}, {"x": None, "y": ""}]),
        ['{"x":1,"y":"a"}', '{"x":null,"y":""}'],
    ),
    "time zones": (
        lambda: pa.array([datetime(2024, 1, 1, 12, tzinfo=UTC)], pa.timestamp("us", "Europe/Paris")),
        ["2024-01-01 12:00:00+00:00"],
    ),
    "times without a zone": (
        lambda: pa.array([datetime(2024, 1, 1, 12)], pa.timestamp("us")),
        ["2024-01-01 12:00:00"],
    ),
    "days": (lambda: pa.array([date(2024, 2, 29)]), ["2024-02-29"]),
    "unsigned": (lambda: pa.array([2**64 - 1, 0], pa.uint64()), ["0", "18446744073709551615"]),
    "dictionaries": (lambda: pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b"]),
}


@pytest.mark.parametrize("name", ARROW)
def test_a_value_of_parquet_is_asked_about_as_it_is_and_only_once(space: Space, tmp_path: Path, name: str) -> None:
    make, shown = ARROW[name]
    array = make()
    declare(space, "parquet", key=[])
    put_parquet(space, array)
    assert set(statuses(space.run()).values()) == {"success"}
    assert asked(space) == shown
    before = space.digests()
    put_parquet(space, array.take(pa.array(range(len(array) - 1, -1, -1))))
    assert set(statuses(space.run()).values()) == {"cached"}
    assert space.digests() == before == clean_build(space, tmp_path / "clean").digests()
    put_parquet(space, array.slice(1))
    space.run()
    assert space.sent == 0


def test_keys_are_told_apart_where_their_texts_run_together(space: Space) -> None:
    declare(space, key=["a", "b"])
    put_json(space, [{"a": "ab", "b": "c", "v": "1"}, {"a": "a", "b": "bc", "v": "2"}, {"a": "a-b", "b": "", "v": "3"}])
    assert statuses(space.run())["q"] == "success"
    assert len({row["_bq_id"] for row in space.rows("select _bq_id from q")}) == 3


def test_keys_that_are_not_numbers_are_told_apart(space: Space) -> None:
    declare(space, "parquet", key=["v"])
    put_parquet(space, pa.array([float("nan"), float("inf"), float("-inf"), 0.0, -0.0]))
    assert statuses(space.run())["q"] == "success"
    assert len({row["_bq_id"] for row in space.rows("select _bq_id from q")}) == 5


def test_duplicate_rows_are_rows_and_are_asked_about_once(space: Space) -> None:
    declare(space, key=[])
    put_json(space, [{"v": "a"}, {"v": "a"}, {"v": "b"}])
    space.run()
    assert asked(space) == ["a", "b"]
    assert len({row["_bq_id"] for row in space.rows("select _bq_id from q")}) == 3
    put_json(space, [{"v": "a"}, {"v": "b"}, {"v": "a"}, {"v": "a"}])
    results = space.run()
    assert space.sent == 0
    assert results["q"].counts.rows == 4


def test_one_time_in_two_zones_is_one_value_and_other_times_are_others(space: Space) -> None:
    declare(space, v="timestamp with time zone")
    put_json(space, [{"id": 1, "v": "2024-01-01T12:00:00Z"}, {"id": 2, "v": "2024-01-01T13:00:00+01:00"}])
    assert statuses(space.run())["q"] == "success"
    assert asked(space) == ["2024-01-01 12:00:00+00:00"]


def test_columns_may_have_any_name_that_tables_can_tell_apart(space: Space) -> None:
    names = [
        "select",
        "order",
        "a b",
        'a"b',
        "a.b",
        "{{ x }}",
        "a'b",
        "ünï",
        "text",
        "rows",
        "_bq_row_number",
        "no_columns",
    ]
    declare(space, key=[])
    space.write("models/c.sql", "select * exclude (_bq_row_number) from {{ source('s') }}")
    space.write("prompts/ask.md", "user:\n<{{ v }} {{ select }} {{ order }} {{ ünï }}>\n")
    put_json(space, [{"v": "1", **{name: f"of {name}" for name in names}}])
    assert statuses(space.run())["q"] == "success"
    assert asked(space) == ["1 of select of order of ünï"]
    row = space.rows("select * from q")[0]
    assert {name: row[name] for name in names if name[0] != "_"} == {n: f"of {n}" for n in names if n[0] != "_"}
    put_json(space, [{"v": "1", **{name: f"of {name}" for name in names}, "a.b": "changed"}])
    results = space.run()
    assert results["q"].status == "success"
    assert space.sent == 0
    assert space.rows('select "a.b" as x from q') == [{"x": "changed"}]


@pytest.mark.parametrize("name", ["_bq_id", "_BQ_ID", "_bq_parent", "_Bq_Calls", "_bq_roots", "V", ""])
def test_columns_called_like_ours_or_like_another_are_an_error(space: Space, name: str) -> None:
    declare(space)
    put_json(space, [{"id": 1, "v": "a", name: "b"}])
    with space.session() as session:
        failures: list[str] = []
        run(session, session.models(), RunOptions(), [lambda event: _note(event, failures)])
    assert len(failures) == 1
    assert "project/sources/s.jsonl" in failures[0]
    assert (f"`{name}`" if name else "no name") in failures[0]
    assert not space.server.requests


def _note(event: Event, failures: list[str]) -> None:
    if isinstance(event, NodeFinished) and event.result.status == "error":
        failures.append(event.result.reason)


@pytest.mark.parametrize("alias", ["_bq_id", "_BQ_ID", "_Bq_Roots"])
def test_sql_may_not_make_columns_called_like_ours(space: Space, alias: str) -> None:
    declare(space)
    space.write("models/c.sql", f"select v, id as {alias} from {{{{ source('s') }}}}")
    put_json(space, [{"id": 1, "v": "a"}])
    results = space.run()
    assert results["c"].status == "error"
    assert "bqbuild's own" in results["c"].reason


def test_marks_and_line_ends_of_files_are_no_content(space: Space) -> None:
    declare(space, "csv")
    path = space.root / "project/sources/s.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"id,v\n1,a\n2,b\n")
    space.run()
    before = space.digests()
    for content in (
        b"\xef\xbb\xbfid,v\n1,a\n2,b\n",
        b"id,v\r\n1,a\r\n2,b\r\n",
        b'v,id\n"a",1\n"b",2\n',
        b"id,v\n1,a\n2,b",
    ):
        path.write_bytes(content)
        assert set(statuses(space.run()).values()) == {"cached"}
        assert space.digests() == before
    path.write_bytes(b"id,v\n1,a\n2,c\n")
    space.run()
    assert asked(space) == ["c"]


@pytest.mark.parametrize(("format", "content"), [("csv", b"id,v\n"), ("jsonl", b""), ("jsonl", b"\n\n")])
def test_a_source_may_become_empty_and_fill_again(space: Space, format: str, content: bytes) -> None:
    declare(space, format)
    path = space.root / f"project/sources/s.{format}"
    path.parent.mkdir(parents=True, exist_ok=True)
    full = b"id,v\n1,a\n" if format == "csv" else b'{"id": 1, "v": "a"}\n'
    path.write_bytes(full)
    space.run()
    before = space.digests()
    path.write_bytes(content)
    results = space.run()
    assert results["q"].status == "success"
    assert results["q"].counts.rows == 0
    path.write_bytes(full)
    assert set(statuses(space.run()).values()) == {"cached"}
    assert space.digests() == before


@pytest.mark.parametrize(("format", "content"), [("csv", b"id,v\n"), ("jsonl", b"")])
def test_a_source_that_was_never_anything_but_empty_needs_declared_columns(
    space: Space, format: str, content: bytes
) -> None:
    declare(space, format)
    path = space.root / f"project/sources/s.{format}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert statuses(space.run()) == {"c": "skipped", "q": "skipped"}
    declare(space, format, id="bigint", v="varchar")
    assert set(statuses(space.run()).values()) == {"success"}
    assert space.sent == 0
