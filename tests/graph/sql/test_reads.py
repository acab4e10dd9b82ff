"""Which columns of which input a query reads. (tests/nodes/test_sql.py checks the same by changing the others.)"""

from __future__ import annotations

import pytest

from bqbuild.core.errors import Where
from bqbuild.core.records import Column
from bqbuild.graph.sql import analyse_sql

T = [Column("id", "bigint"), Column("Txt", "varchar"), Column("x", "double"), Column("l", "varchar[]")]
U = [Column("id", "bigint"), Column("y", "bigint")]
SCHEMAS = {"t": T, "u": U, "a.b": U}

ALL = "id Txt x l"

CASES = [
    ("select id from t", {"t": "id"}),
    ('select TXT from "t"', {"t": "Txt"}),
    ("select * from t", {"t": ALL}),
    ("select * exclude (x) from t", {"t": "id Txt l"}),
    ("select count(*) from t", {"t": ""}),
    ("select 1 from t where x > 0", {"t": "x"}),
    ("with s as (select * from t) select id from s", {"t": "id"}),
    ("with s as (select * from t), r as (select * from s) select count(*) from r where x > 1", {"t": "x"}),
    ("with s as (select id, x from t) select 1 as one from u", {"t": "", "u": ""}),
    ("select y from t join u using (id)", {"t": "id", "u": "id y"}),
    ("select u.* from t join u on t.x = u.y", {"t": "x", "u": "id y"}),
    ("select a.x from t a join t b on a.id = b.id and b.Txt = 'q'", {"t": "id x Txt"}),
    ("select id from t where exists (select 1 from u where u.y = t.x)", {"t": "id x", "u": "y"}),
    ("select id from t where id in (select y from u)", {"t": "id", "u": "y"}),
    ("select id, (select max(y) from u) as m from t", {"t": "id", "u": "y"}),
    ("select w from t, unnest(t.l) as q(w)", {"t": "l"}),
    ("select id, unnest(l) from t", {"t": "id l"}),
    ("select n from (select id, count(*) as n from t group by id)", {"t": "id"}),
    ("select n from (select id, count(*) as n from t group by all)", {"t": "id"}),
    ("select a from (select distinct id as a, x as b from t)", {"t": "id x"}),
    ("select a from (select id as a, x as b from t order by b limit 3)", {"t": "id x"}),
    ("select a from (select id as a, x as b from t order by 2 limit 3)", {"t": "id x"}),
    ("select id from t qualify row_number() over (partition by Txt order by x) = 1", {"t": "id Txt x"}),
    ("select id from t union all select y from u", {"t": "id", "u": "y"}),
    ('select id from "a.b" where "a.b".y = 1', {"a.b": "id y"}),
    ("with t as (select * from t) select id from t", {"t": "id"}),
    ("select sum(x) over (partition by Txt) as s from t", {"t": "x Txt"}),
    ("select t.id from t semi join u on t.x = u.y", {"t": "id x", "u": "y"}),
    # not followed: everything counts
    ("select t from t", {"t": None}),
    ("select columns('i.*') from t", {"t": None}),
    ("pivot t on Txt using sum(x)", {"t": None}),
    ("select * from t natural join u", {"t": None, "u": None}),
    ("with recursive n as (select id from t union all select id + 1 from n where id < 3) select * from n", {"t": None}),
    # a column that is not there is for DuckDB to complain of
    ("select nope from t", {"t": None}),
]


@pytest.mark.parametrize(("sql", "expected"), CASES, ids=[sql for sql, _ in CASES])
def test_the_columns_that_can_reach_the_result_are_read(sql: str, expected: dict[str, str | None]) -> None:
    found = analyse_sql(sql, Where("m.sql")).reads(SCHEMAS)
    assert found == {name: None if text is None else frozenset(text.split()) for name, text in expected.items()}


def test_a_star_over_an_unknown_input_reads_all_of_it() -> None:
    model = analyse_sql("select t.id, u.* from t join u on t.id = u.id", Where("m.sql"))
    assert model.reads({"t": T, "u": None})["u"] is None


def test_columns_under_their_table_are_known_without_a_schema() -> None:
    model = analyse_sql("select t.id, u.y from t join u on t.x = u.y", Where("m.sql"))
    assert model.reads({"t": None, "u": None}) == {"t": frozenset({"id", "x"}), "u": frozenset({"y"})}


def test_bqbuilds_own_columns_are_no_columns_of_the_users() -> None:
    schemas = {"t": [*T, Column("_bq_id", "varchar"), Column("_bq_parent", "varchar")]}
    model = analyse_sql("select id, _bq_parent as above from t", Where("m.sql"))
    assert model.reads(schemas) == {"t": frozenset({"id"})}
    assert model.mentioned == {"_bq_parent"}
    assert analyse_sql("select * from t", Where("m.sql")).output_columns(schemas) == ["id", "Txt", "x", "l"]


OUTPUTS = [
    ("select * from t", ALL),
    ("select TXT, X as Big from t", "Txt Big"),
    ("with c(a, b) as (select id, x from t) select * from c", "a b"),
    ("select * from t join u using (id)", "id Txt x l y"),
    ("select * replace (x + 1 as x) from t", ALL),
    ("select * rename (x as z) from t", "id Txt z l"),
    ("select id as a from t union all select y from u", "a"),
    ("select count(*) from t", None),
    ("select columns('i.*') from t", None),
    ("select * from nobody", None),
]


@pytest.mark.parametrize(("sql", "expected"), OUTPUTS, ids=[sql for sql, _ in OUTPUTS])
def test_the_columns_of_the_result_are_told_where_they_can_be(sql: str, expected: str | None) -> None:
    found = analyse_sql(sql, Where("m.sql")).output_columns(SCHEMAS)
    assert found == (None if expected is None else expected.split())


def test_a_query_that_only_a_program_writes_is_compiled_in_good_time() -> None:
    many = " or ".join(f"id = {number}" for number in range(3000))
    for sql in (
        f"select id from t where {many}",
        f"select id from t where id in ({', '.join(map(str, range(5000)))})",
        " union all ".join(["select id from t"] * 400),
        "select " + " + ".join(["id"] * 1500) + " as x from t",
        "select id from (" * 60 + "t" + ")" * 60,
    ):
        model = analyse_sql(sql, Where("m.sql"))
        assert model.identity
        assert model.reads({"t": T})["t"] in (None, frozenset({"id"}))
        assert model.compile({"t": T}).sql
