"""SQL models: what they give is what DuckDB gives, with ids that are unique and don't depend on the order of rows."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from bqbuild.config.specs import SqlSpec
from bqbuild.core.errors import BuildError, ProjectError, Where
from bqbuild.core.events import Warned
from bqbuild.core.ids import row_id
from bqbuild.core.records import ID, ROOTS, Column, Node, NodeName, Ref, Table
from bqbuild.graph.sql import analyse_sql
from bqbuild.nodes.base import BuildContext
from bqbuild.nodes.sql import SqlKind
from bqbuild.store import open_store
from bqbuild.store.base import Store
from bqbuild.store.types import schema_of
from tests.nodes.sql_queries import KEPT, MADE, UNSTABLE

TYPES: Mapping[str, Sequence[Column]] = {
    "t": [
        Column("id", "bigint"),
        Column("txt", "varchar"),
        Column("x", "double"),
        Column("g", "bigint"),
        Column("l", "varchar[]"),
        Column("j", "json"),
        Column("unread", "varchar"),
    ],
    "u": [Column("id", "bigint"), Column("y", "bigint"), Column("Name", "varchar"), Column("unread", "varchar")],
    "a.b": [Column("k", "varchar"), Column("v", "bigint")],
}
LINEAGE = [Column(ID, "varchar"), Column(ROOTS, "varchar[]")]


def _rows(name: str, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with doubles that add up differently in every order, repeated values, NULLs and equal rows."""
    chance = random.Random(f"{name}{seed}")
    rows: list[dict[str, Any]] = []
    for number in range(120 if name == "t" else 30):
        match name:
            case "t":
                row = {
                    "id": number % 40,
                    "txt": None if number % 17 == 0 else f"text {number % 13}",
                    "x": None if number % 19 == 0 else chance.choice([0.1, 1e16, -1e16, 3.3, 1e-9]) * (number % 5 + 1),
                    "g": None if number % 7 == 0 else number % 4,
                    "l": [f"w{number % 3}", f"w{number % 5}"][: number % 3],
                    "j": f'{{"a":{number % 3},"b":["q{number % 4}"]}}',
                    "unread": f"u{number}",
                }
            case "u":
                row = {"id": number * 2, "y": number % 6, "Name": f"n{number % 9}", "unread": f"u{number}"}
            case _:
                row = {"k": f"text {number % 13}", "v": number % 3}
        rows.append(row)
    for number, row in enumerate(rows):
        identity = row_id("source", name, number)
        row |= {ID: identity, ROOTS: [identity]}
    return rows


@dataclass
class Desk:
    """A store with the inputs, and a way to build SQL over them."""

    store: Store
    root: Path
    tables: dict[str, Table] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    built: dict[str, Table] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)

    def put(self, name: str, rows: Sequence[dict[str, Any]], columns: Sequence[Column] | None = None) -> None:
        schema = schema_of([*(columns or TYPES[name]), *LINEAGE])
        writer = self.store.tables.writer(schema)
        writer.write(pa.Table.from_pylist(list(rows), schema=schema))
        self.tables[name] = writer.commit()

    def build(self, sql: str, **settings: Any) -> Table:
        names = [name for name in self.tables if f'"{name}"' in sql]
        spec = SqlSpec(name="m", sql=sql, **settings)
        refs = tuple(Ref(NodeName(name)) for name in names)
        node = Node(NodeName("m"), "sql", spec, refs, Where("models/m.sql", 1), "models/m.sql", ("p", "m"), body=sql)
        context = BuildContext(
            node=node.name,
            project=SimpleNamespace(root=self.root),  # type: ignore[arg-type]  # all that the kind could ask for
            store=self.store,
            scratch=self.root / "scratch",
            emit=lambda event: self.warnings.append(event.message) if isinstance(event, Warned) else None,
            run_rows=_no_rows,
        )
        return SqlKind().build(node, {name: self.tables[name] for name in names}, context).table

    def rows(self, table: Table) -> list[dict[str, Any]]:
        return [row for batch in self.store.tables.batches(table) for row in batch.to_pylist()]

    def once(self, sql: str) -> Table:
        """The table of a query, built by the first test that asks."""
        if sql not in self.built:
            self.warnings.clear()
            self.built[sql] = self.build(sql)
            self.warned |= {sql} if self.warnings else set()
        return self.built[sql]

    def run(self, sql: str, **settings: Any) -> list[dict[str, Any]]:
        return self.rows(self.build(sql, **settings) if settings else self.once(sql))


def _no_rows(*_: object) -> Any:
    raise AssertionError("SQL calls no LLM")


def _desk(root: Path, *, shuffle: int | None = None) -> Desk:
    desk = Desk(open_store(str(root / "store")), root)
    for name in TYPES:
        rows = _rows(name)
        if shuffle is not None:
            random.Random(shuffle).shuffle(rows)
        desk.put(name, rows)
    return desk


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = _desk(tmp_path_factory.mktemp("desk"))
    yield desk
    desk.store.close()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    root = tmp_path_factory.mktemp("other")
    other = Desk(open_store(str(root / "store")), root)
    yield other
    other.store.close()


def _user(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows without ids, in an order of their own, so that they can be compared."""
    return sorted(repr([(key, value) for key, value in row.items() if key not in (ID, ROOTS)]) for row in rows)


@pytest.fixture(scope="module")
def plain(desk: Desk) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with the same rows, and nothing of ours."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, columns in TYPES.items():
            files = [str(file) for file in desk.store.tables.files(desk.tables[name])]
            given = ", ".join(
                f'"{column.name}"::JSON AS "{column.name}"' if column.type == "json" else f'"{column.name}"'
                for column in columns
            )
            connection.execute(f'CREATE VIEW "{name}" AS SELECT {given} FROM read_parquet({files})')
        yield connection


def _as_duckdb_has_it(plain: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """What DuckDB itself makes of a query, names and all."""
    relation = plain.sql(sql)
    names = relation.columns
    table = relation.to_arrow_table()
    arrays = [
        column.cast(pa.int64()) if pa.types.is_decimal(column.type) and column.type.scale == 0 else column
        for column in table.columns
    ]
    rows = pa.table(arrays, names=[f"c{number}" for number in range(len(names))]).to_pylist()
    return sorted(repr(list(zip(names, row.values(), strict=True))) for row in rows)


@pytest.mark.parametrize("sql", KEPT + MADE)
def test_rows_are_those_that_duckdb_gives(desk: Desk, plain: duckdb.DuckDBPyConnection, sql: str) -> None:
    assert _user(desk.run(sql)) == _as_duckdb_has_it(plain, sql)


@pytest.mark.parametrize("sql", KEPT)
def test_a_single_scan_that_keeps_rows_keeps_their_ids_and_roots(desk: Desk, sql: str) -> None:
    given = {row[ID] for name in desk.tables if f'"{name}"' in sql for row in desk.rows(desk.tables[name])}
    rows = desk.run(sql)
    assert rows
    assert all(row[ID] in given and row[ROOTS] == [row[ID]] for row in rows)


@pytest.mark.parametrize("sql", KEPT + MADE + UNSTABLE)
def test_ids_are_unique_and_roots_are_sorted_ids_of_the_inputs(desk: Desk, sql: str) -> None:
    given = {row[ID] for name in desk.tables for row in desk.rows(desk.tables[name])}
    rows = desk.run(sql)
    ids = [row[ID] for row in rows]
    assert len(set(ids)) == len(ids)
    assert None not in ids
    for row in rows:
        assert row[ROOTS] == sorted(set(row[ROOTS]))
        assert set(row[ROOTS]) <= given


@pytest.mark.parametrize("sql", KEPT + MADE + UNSTABLE)
def test_neither_the_order_of_rows_nor_a_column_that_is_not_read_changes_anything(
    desk: Desk, other: Desk, sql: str
) -> None:
    names = [name for name in TYPES if f'"{name}"' in sql]
    reads = analyse_sql(sql, Where("m.sql")).reads({name: [*TYPES[name], *LINEAGE] for name in names})
    for name in names:
        rows = _rows(name)
        read = reads[name]
        for column in TYPES[name]:
            if read is not None and column.name not in read:
                values = [row[column.name] for row in rows]
                random.Random(5).shuffle(values)
                for row, value in zip(rows, values, strict=True):
                    row[column.name] = value
        random.Random(1).shuffle(rows)
        other.put(name, rows)
    assert other.build(sql).digest == desk.once(sql).digest


@pytest.mark.parametrize("sql", KEPT + MADE + UNSTABLE)
def test_every_query_is_run_in_its_compiled_form(desk: Desk, sql: str) -> None:
    desk.once(sql)
    assert sql not in desk.warned


@pytest.mark.parametrize("sql", KEPT + MADE + UNSTABLE)
def test_columns_that_can_be_told_beforehand_are_those_that_come(desk: Desk, sql: str) -> None:
    told = analyse_sql(sql, Where("m.sql")).output_columns({name: [*TYPES[name], *LINEAGE] for name in TYPES})
    assert told is None or told == list(desk.once(sql).user_columns)


NOT_FOLLOWED = (
    "except", "intersect", "pivot", "recursive", "values (1)", "select 1 as", "natural", "columns('", "select s ",
    "to_json(s)",
)  # fmt: skip


@pytest.mark.parametrize("sql", [sql for sql in MADE + UNSTABLE if not any(part in sql for part in NOT_FOLLOWED)])
def test_rows_that_are_made_of_others_know_their_seeds(desk: Desk, sql: str) -> None:
    rows = desk.run(sql)
    seeds = [row for row in rows if row[ROOTS]]
    assert seeds or "where false" in sql or "(select count(*)" in sql


def test_groups_and_joins_have_ids_of_what_they_are_made_of(desk: Desk) -> None:
    all_rows = {row["txt"]: row[ID] for row in desk.run('select txt, count(*) as n from "t" group by txt')}
    some_rows = {row["txt"]: row[ID] for row in desk.run('select txt, max(id) as m from "t" where g = 1 group by 1')}
    assert some_rows.items() <= all_rows.items()
    one = {
        (row["a"], row["b"]): row[ID] for row in desk.run('select t.id as a, u.id as b from "t" join "u" using (id)')
    }
    two = {
        (row["a"], row["b"]): row[ID]
        for row in desk.run('select t.id as a, u.id as b, y from "t" join "u" using (id) where y > 1')
    }
    assert set(two.values()) <= set(one.values()) or len(one) != len(desk.rows(desk.tables["t"]))


def test_the_roots_of_a_group_are_those_of_its_rows(desk: Desk) -> None:
    roots: dict[object, set[str]] = {}
    for row in _rows("t"):
        roots.setdefault(row["g"], set()).update(row[ROOTS])
    found = {row["g"]: set(row[ROOTS]) for row in desk.run('select g, count(*) as n from "t" group by g')}
    assert found == roots
    distinct = {row["g"]: set(row[ROOTS]) for row in desk.run('select distinct g from "t"')}
    assert distinct == roots


def test_a_row_keeps_the_smallest_of_very_many_roots(tmp_path: Path) -> None:
    desk = Desk(open_store(str(tmp_path / "store")), tmp_path)
    rows = [{"k": "x", "v": number, ID: f"{number:032}", ROOTS: [f"{number:032}"]} for number in range(3000)]
    desk.put("a.b", rows)
    (row,) = desk.run('select count(*) as n from "a.b"')
    assert row[ROOTS] == [f"{number:032}" for number in range(1000)]
    desk.store.close()


def test_the_ids_of_inputs_can_be_read_and_joined_on(tmp_path: Path) -> None:
    desk = Desk(open_store(str(tmp_path / "store")), tmp_path)
    desk.put("u", _rows("u"))
    parent = Column("_bq_parent", "varchar")
    made = [
        {"k": "x", "v": n, "_bq_parent": row[ID], ID: f"made{n}", ROOTS: row[ROOTS]} for n, row in enumerate(_rows("u"))
    ]
    desk.put("a.b", made, [*TYPES["a.b"], parent])
    rows = desk.run('select u.id, v, u._bq_id as above from "u" join "a.b" b on b._bq_parent = u._bq_id')
    assert len(rows) == 30
    assert all(row["above"] == row[ROOTS][0] for row in rows)
    assert desk.build('select * from "a.b"').user_columns == ("k", "v")
    assert desk.build('select *, _bq_parent is null as orphan from "a.b"').user_columns == ("k", "v", "orphan")
    desk.store.close()


@pytest.mark.parametrize(
    ("sql", "message", "line", "hint"),
    [
        ('select\n  idd\nfrom "t"', '"idd" not found', 2, "did you mean 'id'?"),
        ('select id + txt from "t"', "DuckDB: ", 1, None),
        ('select id,\n cast(txt as integer) as n from "t"', "Could not convert", 0, None),
        ('select t.id, u.id from "t" join "u" using (id)', "two columns are called `id`", 0, "with AS"),
        ('select id, 1 as ID from "t"', "two columns are called `ID`", 0, "with AS"),
        ('select _bq_id, id from "t"', "`_bq_id` is bqbuild's own", 0, "AS source_id"),
        ('select nofunction(id) from "t"', "nofunction", 1, None),
        ("select * from nobody", "`nobody` is not an input", 1, "ref('model')"),
        ("select 170141183460469231731687303715884105727::hugeint as big", "out of range", 0, None),
        ("select error('boom') as x", "boom", 0, None),
    ],
)
def test_a_failure_names_the_file_and_where_it_can_the_line(
    desk: Desk, sql: str, message: str, line: int, hint: str | None
) -> None:
    with pytest.raises((BuildError, ProjectError)) as caught:
        desk.build(sql)
    error = caught.value
    assert message in error.message
    assert "\n" not in error.message
    assert error.where is not None
    assert (error.where.file, error.where.line) == ("models/m.sql", line)
    assert hint is None or hint in str(error.hint)


@pytest.mark.parametrize(
    ("value", "stored", "kind"),
    [
        ("sum(1)", 1, "bigint"),
        ("1::hugeint", 1, "bigint"),
        ("1::uhugeint", 1, "bigint"),
        ("1::utinyint", 1, "utinyint"),
        ("1.50::decimal(10, 2)", None, "decimal(10,2)"),
        ("'a'::enum('a', 'b')", "a", "varchar"),
        ("'7d5c0b4e-4d3b-4a53-9b63-3f4b1b2a7c11'::uuid", "7d5c0b4e-4d3b-4a53-9b63-3f4b1b2a7c11", "varchar"),
        ("interval 1 day", "1 day", "varchar"),
        ("'101'::bit", "101", "varchar"),
        ("null", None, "integer"),
        ("{'a': 1, 'b': [1, 2]}", {"a": 1, "b": [1, 2]}, "struct(a integer, b integer[])"),
        ("map {'k': 1}", [("k", 1)], "map(varchar, integer)"),
        ("[[1], null]", [[1], None], "integer[][]"),
        ("'{\"a\": 1}'::json", '{"a": 1}', "json"),
        ("timestamp '2024-01-01 00:00:00'", None, "timestamp"),
        ("timestamptz '2024-01-01 00:00:00'", None, "timestamp with time zone"),
        ("'a\\0b'", "a\\0b", "varchar"),
        ("chr(0) || 'x'", "\0x", "varchar"),
        ("'nan'::double = 'nan'::double", True, "boolean"),
        ("time '12:00:00'", None, "time"),
        ("'x'::blob", b"x", "blob"),
    ],
)
def test_types_that_tables_lack_are_stored_as_the_nearest(desk: Desk, value: str, stored: object, kind: str) -> None:
    table = desk.build(f"select {value} as v")
    assert table.columns[0].type == kind
    if stored is not None:
        assert desk.rows(table)[0]["v"] == stored


def test_a_type_that_no_table_can_hold_says_so(desk: Desk) -> None:
    with pytest.raises(BuildError, match="union"):
        desk.build("select union_value(num := 2) as u")


def test_volatile_models_may_look_at_the_clock(desk: Desk) -> None:
    with pytest.raises(ProjectError, match="another value every time"):
        desk.build("select now() as t")
    assert desk.build("select now() as t, random() as r", volatile=True).rows == 1


def test_nothing_outside_the_store_can_be_read(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    known = [1, 2, 3]  # a variable of Python that DuckDB would take for a table
    for sql in (f"select * from '{tmp_path}/secret.csv'", "select * from known"):
        with pytest.raises((BuildError, ProjectError)):
            desk.build(sql)
    assert known


def test_sums_of_many_doubles_are_the_same_whatever_the_threads_do(tmp_path: Path) -> None:
    chance = random.Random(0)
    rows = [
        {"id": n, "txt": f"g{n % 3}", "x": chance.uniform(-1e9, 1e9) * 10 ** (n % 7), "g": n % 2, "l": None, "j": None}
        | {"unread": None, ID: f"{n:032}", ROOTS: []}
        for n in range(300_000)
    ]
    digests = set()
    sql = 'select txt, sum(x) as s, avg(x) as a, stddev(x) as d from "t" group by txt'
    for attempt in range(2):
        desk = Desk(open_store(str(tmp_path / f"store{attempt}")), tmp_path)
        chance.shuffle(rows)
        desk.put("t", rows)
        digests |= {desk.build(sql).digest for _ in range(2)}
        desk.store.close()
    assert len(digests) == 1


def test_what_cannot_be_compiled_runs_as_it_is_written_and_warns(desk: Desk, plain: duckdb.DuckDBPyConnection) -> None:
    desk.warnings.clear()
    sql = (
        'select g, len("list(unread)") as n from (select g, list(unread) from "t" group by g); -- named by its text;\n'
    )
    rows = desk.run(sql)
    assert _user(rows) == _as_duckdb_has_it(plain, sql)
    assert len({row[ID] for row in rows}) == len(rows)
    assert "can't be followed" in desk.warnings[0]


def test_an_input_without_rows_or_without_roots_is_all_right(tmp_path: Path) -> None:
    desk = Desk(open_store(str(tmp_path / "store")), tmp_path)
    desk.put("u", [])
    for sql in ('select * from "u"', 'select y, count(*) as n from "u" group by y', 'select distinct y from "u"'):
        assert desk.run(sql) == []
    (row,) = desk.run('select count(*) as n, sum(y) as s from "u"')
    assert (row["n"], row["s"], row[ROOTS]) == (0, None, [])
    desk.store.close()
