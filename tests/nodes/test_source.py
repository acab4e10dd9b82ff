"""Sources: formats, types, ids, and the errors that bad files give."""

from __future__ import annotations

import hashlib
import os
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bqbuild.config.lock import read_lock
from bqbuild.config.project import load_project
from bqbuild.core.errors import BqError, BuildError, ProjectError
from bqbuild.core.ids import row_id
from bqbuild.core.records import ID, ROOTS, Column, Node, NodeName, Table
from bqbuild.nodes.base import BuildContext
from bqbuild.nodes.source import SourceKind, infer_columns, key_ids, source_origins
from bqbuild.nodes.source_files import files_digest, source_files
from bqbuild.store import open_store
from bqbuild.store.base import Store

PROJECT = "name: demo\nversion: 1\n"
PROFILES = "default: dev\ntargets: {dev: {store: .bqbuild}}\n"


@dataclass
class Bench:
    """A project with one source, `notes`, and a store."""

    root: Path
    store: Store

    def declare(self, **settings: Any) -> None:
        lines = [f"    {key}: {value}\n" for key, value in settings.items()]
        self.write("../models/sources.yml", f"sources:\n  - name: notes\n{''.join(lines)}")

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.root / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def node(self) -> Node:
        return load_project(self.root).nodes[NodeName("notes")]

    def build(self) -> Table:
        project = load_project(self.root)
        node = project.nodes[NodeName("notes")]
        context = BuildContext(node.name, project, self.store, self.root / "scratch", lambda _: None, _no_rows)
        return SourceKind().build(node, {}, context).table

    def rows(self) -> list[dict[str, Any]]:
        return [row for batch in self.store.tables.batches(self.build()) for row in batch.to_pylist()]

    def values(self) -> list[dict[str, Any]]:
        return [{key: value for key, value in row.items() if not key.startswith("_bq_")} for row in self.rows()]

    def types(self) -> dict[str, str]:
        return {column.name: column.type for column in self.build().columns if not column.name.startswith("_bq_")}

    def lock(self) -> dict[str, str]:
        columns = read_lock(self.root / "project" / "sources.lock").columns("notes") or ()
        return {column.name: column.type for column in columns}

    def error(self) -> BqError:
        with pytest.raises(BqError) as caught:
            self.build()
        return caught.value


def _no_rows(*_: object) -> Any:
    raise AssertionError("sources call no LLM")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, open_store(str(tmp_path / "store")))
    bench.write("bqbuild.yml", PROJECT)
    bench.write("profiles.yml", PROFILES)
    yield bench
    bench.store.close()


def jsonl(bench: Bench, *lines: str, **settings: Any) -> None:
    bench.write("sources/notes.jsonl", "".join(f"{line}\n" for line in lines))
    bench.declare(path="sources/notes.jsonl", **settings)


def test_jsonl_has_a_row_a_line(bench: Bench) -> None:
    jsonl(bench, '{"id": 1, "text": "äöü 😀"}', "", '{"text": "b", "id": 2, "more": true}')
    assert bench.values() == [
        {"id": 1, "text": "äöü 😀", "more": None},
        {"id": 2, "text": "b", "more": True},
    ]


@pytest.mark.parametrize(
    ("values", "expected", "stored"),
    [
        ("1 2 null", "bigint", [1, 2, None]),
        ("1 2.5", "double", [1.0, 2.5]),
        ("true null false", "boolean", [True, None, False]),
        ('"a" "b"', "varchar", ["a", "b"]),
        ("null null", "varchar", [None, None]),
        ('"a" 1 2.50 true', "varchar", ["a", "1", "2.5", "true"]),
        ("true 1", "varchar", ["true", "1"]),
        ('{"a":1} [1,2]', "json", ['{"a":1}', "[1,2]"]),
        ('{"b":{"c":[1,null]},"a":"ü"} "text" 3', "json", ['{"b":{"c":[1,null]},"a":"ü"}', '"text"', "3"]),
        ("9223372036854775807 -9223372036854775808", "bigint", [2**63 - 1, -(2**63)]),
        ("9223372036854775808 1", "varchar", ["9223372036854775808", "1"]),
        ("123456789012345678901234567890", "varchar", ["123456789012345678901234567890"]),
        ("1e3 -0.0", "double", [1000.0, 0.0]),
    ],
)
def test_types_are_the_narrowest_that_hold_all_values(
    bench: Bench, values: str, expected: str, stored: list[object]
) -> None:
    jsonl(bench, *(f'{{"n": {number}, "v": {value}}}' for number, value in enumerate(values.split(" "))), key="[n]")
    assert bench.types()["v"] == expected
    assert [row["v"] for row in bench.values()] == stored
    assert bench.lock() == {"n": "bigint", "v": expected}


def test_the_lock_keeps_one_odd_row_from_retyping_a_column(bench: Bench) -> None:
    jsonl(bench, '{"id": 1, "score": 3}')
    bench.build()
    jsonl(bench, '{"id": 1, "score": 3}', '{"id": 2, "score": "high"}')
    error = bench.error()
    assert str(error.where) == "project/sources/notes.jsonl:2"
    assert "`score` is bigint" in error.message
    assert "'high'" in error.message
    assert error.hint is not None
    assert "bqbuild parse --update-sources" in error.hint
    jsonl(bench, '{"id": 1, "score": 3}', '{"id": 2, "score": 4.0}')
    assert [row["score"] for row in bench.values()] == [3, 4]


def test_a_locked_double_takes_integers_and_a_locked_text_takes_any_scalar(bench: Bench) -> None:
    jsonl(bench, '{"a": 1.5, "b": "x"}')
    bench.build()
    jsonl(bench, '{"a": 2, "b": 12}', '{"a": null, "b": false}')
    assert bench.values() == [{"a": 2.0, "b": "12"}, {"a": None, "b": "false"}]


def test_new_columns_are_inferred_and_added_to_the_lock(bench: Bench) -> None:
    jsonl(bench, '{"id": 1}')
    bench.build()
    jsonl(bench, '{"id": 1}', '{"id": 2, "extra": [1]}')
    assert bench.types() == {"id": "bigint", "extra": "json"}
    assert bench.lock() == {"id": "bigint", "extra": "json"}


def test_a_column_that_is_gone_stays_as_null(bench: Bench) -> None:
    jsonl(bench, '{"id": 1, "old": "x"}')
    bench.build()
    jsonl(bench, '{"id": 1}')
    assert bench.values() == [{"id": 1, "old": None}]


def test_declared_types_win_over_the_data(bench: Bench) -> None:
    jsonl(
        bench,
        '{"id": 7, "day": "2024-02-29", "price": "1.50", "tags": ["a", "b"], "n": 3}',
        columns="{id: string, day: date, price: 'decimal(6,2)', tags: 'list<string>', n: double, later: int}",
    )
    assert bench.types() == {
        "id": "varchar",
        "day": "date",
        "price": "decimal(6,2)",
        "tags": "varchar[]",
        "n": "double",
        "later": "bigint",
    }
    (row,) = bench.values()
    assert (row["id"], str(row["day"]), str(row["price"]), row["tags"], row["n"], row["later"]) == (
        "7", "2024-02-29", "1.50", ["a", "b"], 3.0, None,
    )  # fmt: skip


def test_a_value_that_is_not_of_the_declared_type_is_an_error(bench: Bench) -> None:
    jsonl(bench, '{"day": "2024-02-30"}', columns="{day: date}")
    assert "`day` is date, and '2024-02-30' is not" in bench.error().message


def test_an_unknown_declared_type_is_an_error(bench: Bench) -> None:
    jsonl(bench, '{"day": 1}', columns="{day: dat}")
    assert "dat" in bench.error().message


CSV = 'id,code,price,flag,note\n1,007,1.5,true,"two\nlines"\n2,042,2,FALSE,\n'


def test_csv_types_look_at_the_text(bench: Bench) -> None:
    bench.write("sources/notes.csv", CSV)
    bench.declare(path="sources/notes.csv")
    assert bench.types() == {"id": "bigint", "code": "varchar", "price": "double", "flag": "boolean", "note": "varchar"}
    assert bench.values() == [
        {"id": 1, "code": "007", "price": 1.5, "flag": True, "note": "two\nlines"},
        {"id": 2, "code": "042", "price": 2.0, "flag": False, "note": None},
    ]


def test_csv_takes_a_delimiter_and_crlf_and_a_byte_order_mark(bench: Bench) -> None:
    bench.write("sources/notes.csv", b"\xef\xbb\xbfa;b\r\n1;x, y\r\n")
    bench.declare(path="sources/notes.csv", delimiter='";"')
    assert bench.values() == [{"a": 1, "b": "x, y"}]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "empty"),
        ("a,b\n1,2\n3\n", 3, "1 cells"),
        ("a,a\n1,2\n", 1, "two columns"),
        ("a,\n1,2\n", 1, "no name"),
        ('a,b\n1,2\n3,"x"y\n', 3, "not CSV"),
        ('a,b\n1,"x\n2,y\n', 3, "not CSV"),
    ],
)
def test_a_broken_csv_names_the_line(bench: Bench, text: str, line: int, message: str) -> None:
    bench.write("sources/notes.csv", text)
    bench.declare(path="sources/notes.csv")
    error = bench.error()
    assert error.where is not None
    assert (error.where.file, error.where.line) == ("project/sources/notes.csv", line)
    assert message in error.message


def test_csv_lines_count_lines_and_not_records(bench: Bench) -> None:
    bench.write("sources/notes.csv", CSV)
    bench.declare(path="sources/notes.csv")
    bench.build()
    project = load_project(bench.root)
    assert [origin[2] for origin in source_origins(bench.node(), project)] == [2, 4]


def test_json_is_an_array_of_rows_or_one_row(bench: Bench) -> None:
    bench.write("sources/notes.json", '[\n {"id": 1},\n\n {"id": 2,\n "t": "x"}\n]\n')
    bench.declare(path="sources/notes.json")
    assert bench.values() == [{"id": 1, "t": None}, {"id": 2, "t": "x"}]
    origins = list(source_origins(bench.node(), load_project(bench.root)))
    assert [(line, row["id"]) for _, _, line, row in origins] == [(2, 1), (4, 2)]
    bench.write("sources/notes.json", '{"id": 5, "t": "y"}')
    assert bench.values() == [{"id": 5, "t": "y"}]


def test_an_empty_array_is_no_rows(bench: Bench) -> None:
    bench.write("sources/notes.json", "[ ]")
    bench.declare(path="sources/notes.json", columns="{id: int}")
    assert bench.values() == []


def test_parquet_keeps_its_types_and_nested_values_become_json(bench: Bench) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.int32()),
            "when": pa.array([0, None], pa.timestamp("ms")),
            "choices": pa.array([{"text": ["a", "b"], "n": 1}, None]),
            "words": pa.array([["x"], []], pa.list_(pa.string())),
            "kind": pa.array(["p", "q"]).dictionary_encode(),
        }
    )
    pq.write_table(table, bench.write("sources/notes.parquet", b""))
    bench.declare(path="sources/notes.parquet")
    assert bench.types() == {
        "id": "integer",
        "when": "timestamp",
        "choices": "json",
        "words": "json",
        "kind": "varchar",
    }
    first, second = bench.values()
    assert (first["choices"], first["words"], first["kind"]) == ('{"text":["a","b"],"n":1}', '["x"]', "p")
    assert (second["choices"], second["words"], second["when"]) == (None, "[]", None)


@pytest.mark.parametrize("content", [b"", b"not parquet at all", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_a_broken_parquet_file_is_named(bench: Bench, content: bytes) -> None:
    bench.write("sources/notes.parquet", content)
    bench.declare(path="sources/notes.parquet")
    assert str(bench.error().where) == "project/sources/notes.parquet"


def test_text_is_a_row_a_file(bench: Bench) -> None:
    bench.write("sources/b.txt", "second\n")
    bench.write("sources/a/a.txt", "first\n")
    bench.declare(path="'sources/**/*.txt'")
    assert bench.values() == [
        {"file": "sources/a/a.txt", "text": "first\n"},
        {"file": "sources/b.txt", "text": "second\n"},
    ]


MARKDOWN = textwrap.dedent(
    """\
    Before.

    # Top #
    Text of top.

    ## Inner
    ```python
    # no heading
    ```
    ### Deep
    deep
    ## Next

    Another
    =======
    * item
    ---
    ~~~
    ## code
    ~~~
    #hashtag
    """
)


def test_markdown_is_a_row_a_section(bench: Bench) -> None:
    bench.write("sources/notes.md", MARKDOWN)
    bench.declare(path="sources/notes.md")
    assert [(row["level"], row["section"], row["title"], row["text"]) for row in bench.values()] == [
        (0, "", "", "Before."),
        (1, "Top", "Top", "Text of top."),
        (2, "Top > Inner", "Inner", "```python\n# no heading\n```"),
        (3, "Top > Inner > Deep", "Deep", "deep"),
        (2, "Top > Next", "Next", ""),
        (1, "Another", "Another", "* item\n---\n~~~\n## code\n~~~\n#hashtag"),
    ]
    origins = source_origins(bench.node(), load_project(bench.root))
    assert [line for _, _, line, _ in origins] == [1, 3, 6, 10, 12, 14]


def test_front_matter_holds_no_headings(bench: Bench) -> None:
    bench.write("sources/notes.md", "---\ntitle: x\n---\n# A\ntext\n")
    bench.declare(path="sources/notes.md")
    assert [row["title"] for row in bench.values()] == ["", "A"]


def test_several_paths_and_globs_are_one_source_and_a_file_counts_once(bench: Bench) -> None:
    bench.write("sources/1.jsonl", '{"id": 1}')
    bench.write("sources/2.jsonl", '{"id": 2}\n')
    bench.write("sources/3.jsonl", "")
    bench.declare(path="[sources/2.jsonl, 'sources/*.jsonl']")
    assert [row["id"] for row in bench.values()] == [1, 2]


def test_a_package_ships_data_that_is_read_where_it_lies(bench: Bench) -> None:
    bench.declare(path="pkg://networkx/py.typed", format="text")
    error = bench.error()
    assert "networkx" in str(error)
    bench.declare(path="pkg://no_such_package_here/x.txt")
    assert bench.error().hint == "install it: pip install no-such-package-here"
    bench.declare(path="pkg://idna/core.py", format="text")
    (row,) = bench.values()
    assert row["file"] == "pkg://idna/core.py"
    assert "def encode" in row["text"]


def test_the_key_makes_the_id(bench: Bench) -> None:
    jsonl(bench, '{"id": "a", "n": 1, "text": "x"}', key="[id, n]")
    (row,) = bench.rows()
    assert row[ID] == row_id("source", "notes", ["a", 1])
    assert row[ROOTS] == [row[ID]]


def test_a_keyed_row_keeps_its_id_whatever_else_changes(bench: Bench) -> None:
    jsonl(bench, '{"id": 1, "text": "x"}', '{"id": 2, "text": "y"}', key="[id]")
    before = {row["id"]: row[ID] for row in bench.rows()}
    jsonl(bench, '{"more": 1, "text": "changed", "id": 2}', '{"id": 1, "text": "x"}', '{"id": 0}', key="[id]")
    after = {row["id"]: row[ID] for row in bench.rows()}
    assert before.items() <= after.items()


def test_without_a_key_the_content_makes_the_id_and_equal_rows_are_numbered(bench: Bench) -> None:
    jsonl(bench, '{"a": 1}', '{"a": 1}', '{"a": 2}', '{"a": 1}')
    before = [row[ID] for row in bench.rows()]
    assert len(set(before)) == 4
    jsonl(bench, '{"a": 2, "new": null}', '{"a": 1}', '{"a": 1}', '{"a": 1}')
    assert {row[ID] for row in bench.rows()} == set(before)


def test_formatting_of_the_file_is_not_content(bench: Bench) -> None:
    jsonl(bench, '{"id": 1, "v": {"a": [1, 2]}}', '{"id": 2, "v": 1.50}')
    before = bench.build().digest
    jsonl(bench, ' {"v" : 1.5,"id":2}', "", '{"id":1,"v":{"a":[1,2]}}  ')
    assert bench.build().digest == before


def test_a_key_that_comes_twice_names_both_places(bench: Bench) -> None:
    jsonl(bench, '{"id": 1}', '{"id": 2}', '{"id": 1}', key="[id]")
    error = bench.error()
    assert str(error.where) == "project/sources/notes.jsonl:3"
    assert "id = 1 is also at project/sources/notes.jsonl:1" in error.message


def test_a_key_that_is_null_is_an_error(bench: Bench) -> None:
    jsonl(bench, '{"id": 1}', '{"x": 2}', key="[id]")
    assert str(bench.error().where) == "project/sources/notes.jsonl:2"


def test_a_key_that_is_no_column_offers_the_nearest(bench: Bench) -> None:
    jsonl(bench, '{"ident": 1}', key="[idnt]")
    assert bench.error().hint == "did you mean 'ident'?"


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "project/sources/notes.jsonl:2:", "not JSON"),
        (b'{"a": 1}\n[1]\n', "project/sources/notes.jsonl:2", "an array"),
        (b'{"a": 1}\n"x"\n', "project/sources/notes.jsonl:2", "a string"),
        (b'{"a": NaN}\n', "project/sources/notes.jsonl:1:", "not JSON"),
        (b'{"a": 1} {"a": 2}\n', "project/sources/notes.jsonl:1:", "not JSON"),
        (b'{"a": "\xff"}\n', "project/sources/notes.jsonl:1:8", "UTF-8"),
        (b'{"a": "x"}\n{"a": "\xc3\x28"}\n', "project/sources/notes.jsonl:2:8", "UTF-8"),
        (b'{"a": "x\x00"}\n', "project/sources/notes.jsonl:1:9", "NUL"),
        ('{"a": 1}\n'.encode("utf-16"), "project/sources/notes.jsonl:1", "UTF-16"),
        (b'{"a": "\\ud800"}\n', "project/sources/notes.jsonl:1:", "not JSON"),
        (b"[" * 5000 + b"\n", "project/sources/notes.jsonl:1:", "not JSON"),
        (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}\n", "project/sources/notes.jsonl:1:", "not JSON"),
    ],
)
def test_a_broken_line_of_jsonl_is_named(bench: Bench, content: bytes, place: str, message: str) -> None:
    bench.write("sources/notes.jsonl", content)
    bench.declare(path="sources/notes.jsonl")
    error = bench.error()
    assert str(error.where).startswith(place)
    assert message in error.message


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[{"a": 1},\n {"a": }]', "project/sources/notes.json:2:8"),
        ('[{"a": 1}\n {"a": 2}]', "project/sources/notes.json:2:2"),
        ('[{"a": 1},\n 3]', "project/sources/notes.json:2"),
        ('{"a": 1}\n{"a": 2}', "project/sources/notes.json:2:1"),
        ('[{"a": 1}', "project/sources/notes.json:1:10"),
        ('[{"a": 1},\n {"a": "\\udc00"}]', "project/sources/notes.json:2:2"),
        ('[{"a": Infinity}]', "project/sources/notes.json:1:2"),
        ("", "project/sources/notes.json:1:1"),
        ("[" * 100000, "project/sources/notes.json:1:2"),
    ],
)
def test_a_broken_json_document_is_named(bench: Bench, text: str, place: str) -> None:
    bench.write("sources/notes.json", text)
    bench.declare(path="sources/notes.json")
    assert str(bench.error().where) == place


def test_an_escaped_nul_is_a_character_like_others(bench: Bench) -> None:
    jsonl(bench, '{"a": "x\\u0000y"}')
    assert bench.values() == [{"a": "x\0y"}]


def test_a_file_that_is_not_there_offers_its_neighbour(bench: Bench) -> None:
    bench.write("sources/notes.jsonl", "{}")
    bench.declare(path="sources/note.jsonl")
    error = bench.error()
    assert "project/sources/note.jsonl" in error.message
    assert error.hint == "did you mean 'sources/notes.jsonl'?"


def test_a_glob_that_matches_nothing_is_an_error(bench: Bench) -> None:
    bench.declare(path="'sources/*.jsonl'")
    assert "no file matches project/sources/*.jsonl" in bench.error().message


def test_a_source_without_rows_needs_declared_columns(bench: Bench) -> None:
    jsonl(bench)
    assert "no rows" in bench.error().message
    jsonl(bench, columns="{id: int, text: string}")
    assert bench.values() == []
    assert bench.types() == {"id": "bigint", "text": "varchar"}


def test_a_format_that_cannot_be_told_is_an_error(bench: Bench) -> None:
    bench.write("sources/notes.dat", "x")
    bench.declare(path="sources/notes.dat")
    with pytest.raises(ProjectError, match="format"):
        bench.build()


def test_a_column_must_not_be_called_like_one_of_bqbuilds(bench: Bench) -> None:
    jsonl(bench, '{"_bq_id": 1}')
    assert "_bq_id" in bench.error().message


def test_a_source_is_a_function_of_its_files(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    lines = [f'{{"id": {number}, "v": {number / 7}, "n": {{"k": [{number}]}}}}' for number in range(9000)]
    jsonl(bench, *lines, key="[id]")
    first = bench.build()
    assert first.rows == 9000
    jsonl(bench, *reversed(lines), key="[id]")
    assert bench.build().digest == first.digest


def test_a_row_of_many_megabytes_is_a_row(bench: Bench) -> None:
    text = "x" * (24 << 20)
    jsonl(bench, f'{{"a": "{text}"}}', '{"a": "small"}')
    assert [len(row["a"]) for row in bench.values()] == [len(text), 5]


def _digest(bench: Bench) -> str:
    spec = bench.node().spec
    return files_digest(spec, source_files(spec, bench.root), bench.root / "cache.json")


def test_the_digest_of_files_is_of_their_content(bench: Bench) -> None:
    jsonl(bench, '{"id": 1}')
    path = bench.root / "project/sources/notes.jsonl"
    os.utime(path, (1_000_000, 1_000_000))
    before = _digest(bench)
    os.utime(path, (2_000_000, 2_000_000))
    assert _digest(bench) == before
    path.write_text('{"id": 2}\n')
    os.utime(path, (2_000_000, 2_000_000))
    assert _digest(bench) != before


def test_the_names_of_files_count_only_where_rows_hold_them(bench: Bench) -> None:
    bench.write("sources/1.jsonl", '{"id": 1}')
    bench.write("sources/1.txt", "text")
    digests: dict[str, set[str]] = {"jsonl": set(), "txt": set()}
    for name in ("1", "2"):
        for kind, found in digests.items():
            bench.declare(path=f"'sources/*.{kind}'")
            found.add(_digest(bench))
            (bench.root / f"project/sources/{name}.{kind}").rename(bench.root / f"project/sources/2.{kind}")
    assert len(digests["jsonl"]) == 1
    assert len(digests["txt"]) == 2


def test_unchanged_files_are_not_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    jsonl(bench, '{"id": 1}')
    os.utime(bench.root / "project/sources/notes.jsonl", (1_000_000, 1_000_000))
    before = _digest(bench)
    opened: list[Path] = []
    real = Path.open

    def spy(path: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(path)
        return real(path, *args, **kwargs)

    spec = bench.node().spec
    monkeypatch.setattr(Path, "open", spy)
    assert files_digest(spec, source_files(spec, bench.root), bench.root / "cache.json") == before
    assert not [path for path in opened if path.suffix == ".jsonl"]


def test_a_damaged_cache_of_hashes_is_no_error(bench: Bench) -> None:
    jsonl(bench, '{"id": 1}')
    before = _digest(bench)
    (bench.root / "cache.json").write_text("{broken")
    assert _digest(bench) == before


def test_a_sha256_is_checked(bench: Bench) -> None:
    content = b'{"id": 1}\n'
    bench.write("sources/notes.jsonl", content)
    bench.declare(path="sources/notes.jsonl", sha256=hashlib.sha256(content).hexdigest())
    assert bench.values() == [{"id": 1}]
    bench.write("sources/notes.jsonl", b'{"id": 2}\n')
    assert "sha256" in bench.error().message


class _Files(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/notes.jsonl" else 404)
        self.end_headers()
        self.wfile.write(b'{"id": 1}\n')

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Files)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_url_is_downloaded_once_and_checked(bench: Bench, site: str) -> None:
    sha256 = hashlib.sha256(b'{"id": 1}\n').hexdigest()
    bench.declare(path="sources/notes.jsonl", url=f"{site}/notes.jsonl", sha256=sha256)
    before = _digest(bench)
    assert bench.values() == [{"id": 1}]
    bench.declare(path="sources/notes.jsonl", url=f"{site}/gone.jsonl", sha256=sha256)
    assert bench.values() == [{"id": 1}]
    assert _digest(bench) == before


def test_a_url_that_gives_other_bytes_is_an_error(bench: Bench, site: str) -> None:
    bench.declare(path="sources/notes.jsonl", url=f"{site}/notes.jsonl", sha256="f" * 64)
    assert "other bytes" in bench.error().message
    assert not list((bench.root / ".bqbuild" / "downloads").rglob("*.jsonl"))


@pytest.mark.parametrize(("url", "error"), [("gone.jsonl", "cannot be downloaded"), ("", "cannot be downloaded")])
def test_a_url_that_fails_is_an_error(bench: Bench, site: str, url: str, error: str) -> None:
    place = f"{site}/{url}" if url else "http://127.0.0.1:1/x"
    bench.declare(path="sources/notes.jsonl", url=place, sha256="f" * 64)
    with pytest.raises(BuildError, match=error):
        bench.build()


def test_a_url_needs_a_sha256_and_http(bench: Bench) -> None:
    bench.declare(path="sources/notes.jsonl", url="http://127.0.0.1:1/x")
    assert "sha256" in bench.error().message
    bench.declare(path="sources/notes.jsonl", url="file:///etc/passwd", sha256="f" * 64)
    assert "neither http nor https" in bench.error().message


def test_origins_name_file_line_and_row(bench: Bench) -> None:
    bench.write("sources/1.jsonl", '{"id": 1}\n\n{"id": 2}\n')
    bench.write("sources/2.jsonl", '{"id": 3}\n')
    bench.declare(path="'sources/*.jsonl'", key="[id]")
    built = {row[ID]: row["id"] for row in bench.rows()}
    origins = list(source_origins(bench.node(), load_project(bench.root)))
    assert [(file, line, row) for _, file, line, row in origins] == [
        ("project/sources/1.jsonl", 1, {"id": 1}),
        ("project/sources/1.jsonl", 3, {"id": 2}),
        ("project/sources/2.jsonl", 1, {"id": 3}),
    ]
    assert {identity: row["id"] for identity, _, _, row in origins} == built


def test_inferring_columns_reads_every_row(bench: Bench) -> None:
    jsonl(bench, *['{"a": 1}'] * 5000, '{"a": 1.5, "z": "late"}')
    spec = bench.node().spec
    assert infer_columns(spec, source_files(spec, bench.root)) == [Column("a", "double"), Column("z", "varchar")]


def test_two_sources_built_at_once_are_both_in_the_lock(bench: Bench) -> None:
    names = [f"s{number}" for number in range(6)]
    for name in names:
        bench.write(f"sources/{name}.jsonl", '{"id": 1}')
    bench.write("../models/sources.yml", "sources:\n" + "".join(_entry(name) for name in names))
    project = load_project(bench.root)
    threads = [threading.Thread(target=_build, args=(bench, project, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_lock(bench.root / "project" / "sources.lock").sources) == set(names)


def _entry(name: str) -> str:
    return f"  - name: {name}\n    path: sources/{name}.jsonl\n"


def _build(bench: Bench, project: Any, name: str) -> None:
    node: Node = project.nodes[NodeName(name)]
    context = BuildContext(node.name, project, bench.store, bench.root / "scratch", lambda _: None, _no_rows)
    SourceKind().build(node, {}, context)


@pytest.mark.parametrize(
    "key", [["a"], [1], ['ä\u0007\x7f"\\', -3], [2**63], [2**70], [1.5], [True], ["x", None, 2], ["\u2028"]]
)
def test_the_fast_id_of_a_key_is_its_id(key: list[Any]) -> None:
    assert key_ids("nötes")(key) == row_id("source", "nötes", key)
