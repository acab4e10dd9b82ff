"""Python models: what functions get and give, ids, and whose fault a failure is."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from bqbuild.config.specs import PythonSpec
from bqbuild.core.errors import BqError, BuildError, ProjectError, Where
from bqbuild.core.records import ID, ROOTS, Column, Node, NodeName, Ref, Table
from bqbuild.nodes.base import BuildContext
from bqbuild.nodes.python import PythonKind, code_of
from bqbuild.store import open_store
from bqbuild.store.base import Store
from bqbuild.store.types import schema_of

COLUMNS = [Column("n", "bigint"), Column("text", "varchar"), Column("j", "json")]
LINEAGE = [Column(ID, "varchar"), Column(ROOTS, "varchar[]")]


@dataclass
class Bench:
    root: Path
    store: Store
    tables: dict[str, Table] = field(default_factory=dict)

    def put(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        schema = schema_of([*COLUMNS, *LINEAGE])
        writer = self.store.tables.writer(schema)
        writer.write(pa.Table.from_pylist(list(rows), schema=schema))
        self.tables[name] = writer.commit()

    def code(self, text: str, name: str = "code.py") -> None:
        path = self.root / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def node(self, **settings: Any) -> Node:
        given = {"name": "m", "kind": "python", "from": "t", "function": "code:run", **settings}
        spec = PythonSpec.model_validate(given)
        refs = tuple(Ref(NodeName(name)) for name in spec.from_)
        where = Where("models/models.yml", 3)
        return Node(NodeName("m"), "python", spec, refs, where, "models/models.yml", ("p", "m"))

    def project(self) -> Any:
        return SimpleNamespace(root=self.root)

    def build(self, **settings: Any) -> Table:
        node = self.node(**settings)
        context = BuildContext(node.name, self.project(), self.store, self.root / "scratch", lambda _: None, _no_rows)
        return PythonKind().build(node, self.tables, context).table

    def rows(self, **settings: Any) -> list[dict[str, Any]]:
        table = self.build(**settings)
        return [row for batch in self.store.tables.batches(table) for row in batch.to_pylist()]

    def error(self, **settings: Any) -> BqError:
        with pytest.raises(BqError) as caught:
            self.build(**settings)
        return caught.value


def _no_rows(*_: object) -> Any:
    raise AssertionError("Python models call no LLM")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, open_store(str(tmp_path / "store")))
    rows = [{"n": n, "text": f"text {n}", "j": f'{{"a":{n}}}', ID: f"id{n}", ROOTS: [f"root{n}"]} for n in range(5)]
    bench.put("t", rows)
    bench.put("u", [{**row, ID: f"u{row[ID]}"} for row in rows[:2]])
    yield bench
    bench.store.close()


def test_a_batch_function_gets_the_users_columns_and_the_id_and_keeps_rows(bench: Bench) -> None:
    bench.code(
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        def run(batch):
            assert isinstance(batch, pa.RecordBatch)
            assert batch.schema.names == ["n", "text", "j", "_bq_id"], batch.schema.names
            return pa.record_batch({"double": pc.multiply(batch["n"], 2), "text": batch["text"]})
        """
    )
    assert bench.rows() == [{"double": n * 2, "text": f"text {n}", ID: f"id{n}", ROOTS: [f"root{n}"]} for n in range(5)]


def test_json_columns_that_are_passed_on_stay_json(bench: Bench) -> None:
    bench.code("def run(batch):\n    return batch\n")
    table = bench.build()
    assert [column.type for column in table.columns] == ["bigint", "varchar", "json", "varchar", "varchar[]"]
    assert table.digest == bench.tables["t"].digest


def test_rows_that_say_where_they_come_from_may_be_dropped_reordered_and_multiplied(bench: Bench) -> None:
    bench.code("def run(batch):\n    return batch.take([4, 1, 1, 1])\n")
    rows = bench.rows()
    assert [row["n"] for row in rows] == [4, 1, 1, 1]
    assert [row[ROOTS] for row in rows] == [["root4"], ["root1"], ["root1"], ["root1"]]
    assert [row[ID] for row in rows[:2]] == ["id4", "id1"]
    assert len({row[ID] for row in rows}) == 4


def test_rows_that_do_not_say_where_they_come_from_must_be_as_many(bench: Bench) -> None:
    bench.code("def run(batch):\n    return batch.select(['n']).slice(1)\n")
    error = bench.error()
    assert "made 4 rows of 5" in error.message
    assert error.hint is not None
    assert "`_bq_id`" in error.hint


def test_an_id_that_no_input_has_is_an_error(bench: Bench) -> None:
    bench.code("import pyarrow as pa\ndef run(batch):\n    return pa.record_batch({'_bq_id': ['made up']})\n")
    assert "'made up'" in bench.error().message


def test_arguments_and_reads_are_handed_over(bench: Bench) -> None:
    bench.code(
        """
        import pyarrow as pa

        def run(batch, word, times=1):
            assert batch.schema.names == ["n", "_bq_id"]
            return pa.record_batch({"word": [word * times] * batch.num_rows})
        """
    )
    assert bench.rows(args={"word": "ha", "times": 2}, reads=["n"])[0]["word"] == "haha"
    assert bench.error(reads=["txt"], args={"word": "x"}).hint == "did you mean 'text'?"


def test_a_function_sees_an_empty_batch_where_there_are_no_rows(bench: Bench) -> None:
    bench.put("t", [])
    bench.code("import pyarrow as pa\ndef run(b):\n    return pa.record_batch({'x': pa.array(b['n'], pa.int64())})\n")
    table = bench.build()
    assert (table.rows, table.user_columns) == (0, ("x",))


def test_a_column_that_is_null_in_some_batches_gets_the_type_of_the_others(bench: Bench) -> None:
    rows: list[dict[str, Any]] = [{"n": n, "text": None, "j": None, ID: f"id{n:06}", ROOTS: []} for n in range(20000)]
    bench.put("t", rows)
    bench.code(
        """
        import pyarrow as pa

        def run(batch):
            first = batch["n"][0].as_py() == 0
            return pa.record_batch({"n": batch["n"], "late": [None if first else "x"] * batch.num_rows})
        """
    )
    table = bench.build()
    assert [column.type for column in table.columns][:2] == ["bigint", "varchar"]
    assert table.rows == 20000
    assert not list((bench.root / "scratch").glob("*"))


def test_declared_types_are_enforced(bench: Bench) -> None:
    bench.code("def run(batch):\n    return batch.select(['n', 'text'])\n")
    table = bench.build(columns={"n": "double", "text": "json"})
    assert [column.type for column in table.columns][:2] == ["double", "json"]
    assert "`txt`" in bench.error(columns={"txt": "string"}).message
    assert "cannot be stored" in bench.error(columns={"text": "bigint"}).message


def test_a_table_function_gets_one_table_an_input(bench: Bench) -> None:
    bench.code(
        """
        import pyarrow as pa

        def run(t, u):
            assert (t.num_rows, u.num_rows) == (5, 2)
            return pa.concat_tables([t, u])
        """
    )
    rows = bench.rows(**{"from": ["t", "u"], "mode": "table"})
    assert [row[ID] for row in rows] == [*(f"id{n}" for n in range(5)), "uid0", "uid1"]
    assert rows[5][ROOTS] == ["root0"]


def test_rows_of_a_table_function_without_ids_are_named_by_content(bench: Bench) -> None:
    bench.code("import pyarrow as pa\ndef run(t):\n    return pa.table({'a': [1, 1, 2]})\n")
    first = bench.rows(mode="table")
    assert len({row[ID] for row in first}) == 3
    bench.code("import pyarrow as pa\ndef run(t):\n    return pa.table({'a': [2, 1, 1]})\n")
    assert {row[ID] for row in bench.rows(mode="table")} == {row[ID] for row in first}


def test_batch_mode_takes_one_input(bench: Bench) -> None:
    bench.code("def run(batch):\n    return batch\n")
    assert bench.error(**{"from": ["t", "u"]}).hint == "use `mode: table`"


def test_a_failure_names_the_line_of_the_users_code(bench: Bench) -> None:
    bench.code("def deeper(x):\n    return x['nope']\n", "helpers.py")
    bench.code("from helpers import deeper\n\ndef run(batch):\n    return deeper({})\n")
    error = bench.error()
    assert isinstance(error, BuildError)
    assert str(error.where) == "models/helpers.py:2"
    assert error.message == "`run` failed: KeyError: 'nope'"


def test_a_failing_import_names_its_line(bench: Bench) -> None:
    bench.code("import no_such_module_here\ndef run(batch):\n    return batch\n")
    error = bench.error()
    assert str(error.where) == "models/code.py:1"
    assert "No module named 'no_such_module_here'" in error.message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"function": "cod:run"}, "no file models/cod.py"),
        ({"function": "code:rum"}, "no function `rum`"),
        ({"function": "code"}, "file:function"),
    ],
)
def test_a_function_that_is_not_there_is_a_mistake_of_the_project(
    bench: Bench, settings: dict[str, str], message: str
) -> None:
    bench.code("def run(batch):\n    return batch\n")
    error = bench.error(**settings)
    assert isinstance(error, ProjectError)
    assert message in error.message
    assert str(error.where) == "models/models.yml:3"


@pytest.mark.parametrize("value", ["None", "[1]", "batch.to_pydict()", "pa.array([1])"])
def test_what_is_no_arrow_data_is_an_error(bench: Bench, value: str) -> None:
    bench.code(f"import pyarrow as pa\ndef run(batch):\n    return {value}\n")
    assert "not an Arrow batch or table" in bench.error().message


def test_modules_of_the_project_import_each_other_and_leave_no_trace(bench: Bench) -> None:
    before = set(sys.modules), list(sys.path)
    bench.code("from ..shared import FACTOR\nSCALE = FACTOR\n", "deep/inner.py")
    bench.code("FACTOR = 3\n", "shared.py")
    bench.code(
        """
        from __future__ import annotations
        from dataclasses import dataclass
        import deep.inner
        import shared as sh
        from deep import inner
        from deep.inner import SCALE
        import pyarrow as pa

        @dataclass
        class Point:
            x: int

        def run(batch):
            from shared import FACTOR
            assert deep.inner is inner and sh.FACTOR == FACTOR
            return pa.record_batch({"x": [Point(SCALE).x] * batch.num_rows})
        """
    )
    assert bench.rows()[0]["x"] == 3
    bench.code("FACTOR = 4\n", "shared.py")
    assert bench.rows()[0]["x"] == 4
    assert {name for name in set(sys.modules) - before[0] if "models" in name or name in ("shared", "deep")} == set()
    assert sys.path == before[1]


def test_the_code_of_a_model_is_that_of_its_file(bench: Bench) -> None:
    bench.code("def run(batch):\n    return batch\n")
    before = code_of(bench.project(), bench.node())
    bench.code("def run(batch):  # the same\n    return batch\n")
    assert code_of(bench.project(), bench.node()) == before
    bench.code("def run(batch):\n    return batch.slice(0)\n")
    assert code_of(bench.project(), bench.node()) != before
