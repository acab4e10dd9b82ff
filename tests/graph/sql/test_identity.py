"""Form is not content: what changes the identity of a query and what does not."""

from __future__ import annotations

import pytest

from bqbuild.core.errors import Where
from bqbuild.graph.sql import analyse_sql


def identity(sql: str) -> str:
    return analyse_sql(sql, Where("m.sql")).identity


SAME = [
    ("select a from t", "SELECT a FROM t"),
    ("select a from t", "select   a\n\n\tfrom\n t  ;"),
    ("select a from t", "-- why\nselect a /* this */ from t -- end"),
    ("select a from t", 'select "a" from "t"'),
    ("select a as b from t", "select a b from t"),
    ("select upper(a) from t", "select UPPER( a ) from t"),
    ("select a from t as x", "select a from t x"),
    ("select a from t where b = 1", "select a from t where (b = 1)"),
    ("select a from t where b = 1 and c = 2", "select a from t where (b = 1) and (c = 2)"),
    ("select a from t where b = 1 and c = 2", "select a from t where c = 2 and b = 1"),
    ("select a from t where a or b or c", "select a from t where c or (b or a)"),
    ("select a::int from t", "select cast(a as int) from t"),
    ("select a from t where b != 1", "select a from t where b <> 1"),
    ("select (a) from t", "select a from t"),
    ("select a from t order by (a)", "select a from t order by a"),
    ("select a from t join u on t.x = u.x", "select a from t inner join u on (t.x = u.x)"),
    ("select count(*) from t group by a", "select COUNT(*) from t GROUP BY a"),
    ("select a from t left join u using (x)", "select a from t LEFT OUTER JOIN u using (x)"),
    ("from t", "select * from t"),
    ("select a from t order by a", "select a from t order by a asc"),
]

DIFFERENT = [
    ("select a from t", "select b from t"),
    ("select a from t", "select a from u"),
    ("select a from t", "select a as b from t"),
    ("select a as b from t", "select a as B from t"),
    ("select a from t", "select distinct a from t"),
    ("select a from t where b = 'x'", "select a from t where b = 'X'"),
    ("select a from t where b = 1", "select a from t where b = 1.0"),
    ("select a from t where b = 'x y'", "select a from t where b = 'x  y'"),
    ("select a from t where (b or c) and d", "select a from t where b or c and d"),
    ("select a from t where a - (b - c) > 0", "select a from t where a - b - c > 0"),
    ("select a from t where not (a and b)", "select a from t where not a and b"),
    ("select (a + b) * c from t", "select a + b * c from t"),
    ("select a, b from t", "select b, a from t"),
    ("select a from t order by a", "select a from t order by a desc"),
    ("select a from t order by a", "select a from t order by a nulls first"),
    ("select a from t limit 1", "select a from t limit 2"),
    ("select a from t union select a from u", "select a from t union all select a from u"),
    ("select a from t left join u using (x)", "select a from t join u using (x)"),
    ("select sum(a) over (order by b) from t", "select sum(a) over (partition by b) from t"),
    ("select sum(a) over (order by b rows 1 preceding) from t", "select sum(a) over (order by b) from t"),
    ("select list(a order by b) from t", "select list(a) from t"),
    ("select count(a) from t", "select count(distinct a) from t"),
    ("select count(*) filter (where a) from t", "select count(*) from t"),
    ("select * exclude (a) from t", "select * exclude (b) from t"),
    ("select a from t group by rollup (a)", "select a from t group by a"),
    ("select a // b from t", "select a / b from t"),
    ("select (s).a from t", "select s from t"),
    ("select a[1:2] from t", "select a[1] from t"),
    ("select try_cast(a as int) from t", "select cast(a as int) from t"),
    ("select a ->> '$.x' from t", "select a -> '$.x' from t"),
    ("select interval 1 day", "select interval 1 month"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_form_does_not_count(one: str, other: str) -> None:
    assert identity(one) == identity(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_meaning_counts(one: str, other: str) -> None:
    assert identity(one) != identity(other)


@pytest.mark.parametrize("sql", [sql for pair in SAME + DIFFERENT for sql in pair])
def test_the_identity_is_sql_whose_identity_is_itself(sql: str) -> None:
    assert identity(identity(sql)) == identity(sql)
