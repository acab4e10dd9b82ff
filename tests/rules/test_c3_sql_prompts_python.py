"""C3 through SQL, prompts and Python: of each column, exactly the nodes that read it are built or ask again.

Every construct is a node of one project over one table. One column after the other is changed, and added; what then
runs must be what the second part of each entry says: the columns that the node reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bqbuild.core.events import NodeResult
from tests.llm_server import LlmServer
from tests.space import Space, statuses

ROWS = "project/sources/t.jsonl"
COLUMNS = "abcdef"

SQL = {
    "named": ("select id, a from t", "a"),
    "aliased": ("select x.id, x.b as a from t as x", "b"),
    "expression": ("select id, upper(a) || b as ab from t", "ab"),
    "filtered": ("select id, a from t where b <> 'none'", "ab"),
    "ordered": ("select id, a from t order by b limit 2", "ab"),
    "star": ("select * from t", "abcdef"),
    "from_first": ("from t", "abcdef"),
    "excluded": ("select * exclude (b, c) from t", "adef"),
    "replaced": ("select * exclude (c, d, e, f) replace (upper(a) as a) from t", "ab"),
    "qualified_star": ("select x.* exclude (a, b, c, d), u.k from t as x join u on x.id = u.id", "ef"),
    "other_star": ("select u.* from u join t on u.id = t.id and t.a <> 'none'", "a"),
    "semi_join": ("select u.k from u where exists (select 1 from t where t.id = u.id and t.b <> '')", "b"),
    "scalar": ("select k, (select max(c) from t where t.id = u.id) as top from u", "c"),
    "in_list": ("select k from u where id in (select id from t where a <> 'none')", "a"),
    "cte": ("with s as (select id, a, b from t) select id, a from s", "a"),
    "cte_star": ("with s as (select * from t), r as (select * from s) select id, f from r", "f"),
    "cte_filtered": ("with s as (select * from t where d <> '') select id, a from s", "ad"),
    "subquery": ("select id, a from (select *, b || c as bc from t)", "a"),
    "derived": ("select id, bc from (select *, b || c as bc from t)", "bc"),
    "window": ("select id, row_number() over (partition by a order by b) as n from t", "ab"),
    "qualified": ("select id, c from t qualify row_number() over (partition by a order by b) = 1", "abc"),
    "named_window": ("select id, count(*) over w as n from t window w as (partition by a)", "a"),
    "grouped": ("select a, count(*) as n, max(b) as top from t group by a having min(c) <> ''", "abc"),
    "grouped_by_number": ("select a, b, count(*) as n from t group by 1, 2", "ab"),
    "distinct": ("select distinct a, b from t", "ab"),
    "distinct_on": ("select distinct on (a) a, b from t order by a, c", "abc"),
    "counted": ("select count(*) as n from t", ""),
    "union_all": ("select id, a as x from t union all select id, b from t", "ab"),
    # rows of one id are told apart by all that they hold
    "union_in_cte": ("with s as (select id, a, b from t union all select id, c, d from t) select id, a from s", "abcd"),
    "case": ("select id, case when a = 'none' then b else 'x' end as y from t", "ab"),
    "other_case": ('select ID, A, "b" from T', "ab"),
    "self_join": ("select x.id, y.c as c from t x join t y on x.id = y.id and x.a <> 'none'", "ac"),
    "lateral_alias": ("select id, a as p, p || b as q from t", "ab"),
    "aggregate_filter": ("select count(*) filter (where a <> 'none') as n from t", "a"),
    "ordered_list": ("select list(a order by b) as l from t", "ab"),
    "lambda": ("select id, list_transform([a], lambda w: w || b) as l from t", "ab"),
    "using": ("select a from t join u using (id)", "a"),
}

PROMPTS = {
    "plain": ("{{ a }}", "a", "a"),
    "matrix_key": ("{{ grade }} {{ b }}", "b", "b"),
    "condition": ("{% if a == 'none' %}{{ b }}{% else %}fine {{ id }}{% endif %}", "ab", ""),
    "loop": ("{% for word in a.split() %}{{ loop.index }} {{ word }} {% endfor %}", "a", "a"),
    "loop_over_name": ("{% for b in a.split() %}{{ b }} {% else %}{{ c }}{% endfor %}", "ac", "a"),
    "set": ("{% set b = a %}{{ b }}", "a", "a"),
    "set_block": ("{% set words %}{{ c }}{% endset %}{{ words }}", "c", "c"),
    "filter": ("{{ a | upper | default(b) }}", "ab", "a"),
    "either": ("{{ (a or b) | trim }}", "ab", "a"),
    "macro": ("{{ both(a, d) }}", "ad", "ad"),
    "own_macro": ("{% macro say(b) %}<{{ b }}>{% endmacro %}{{ say(e) }}", "e", "e"),
    "include": ('{% include "partials/note" %}', "f", "f"),
    "imported": ('{% from "partials/lib" import shout %}{{ shout(b) }}', "b", "b"),
    "test": ("{{ 'long' if a is defined and c | length > 3 else 'short' }} {{ id }}", "ac", ""),
    "comment": ("{# {{ a }} #}{{ b }}", "b", "b"),
    "raw": ("{% raw %}{{ a }}{% endraw %} {{ c }}", "c", "c"),
    "call_block": ("{% call wrapped() %}{{ d }}{% endcall %}", "d", "d"),
    "with": ("{% with a = e %}{{ a }}{% endwith %}", "e", "e"),
}
"""What a prompt reads, and of these the columns whose change makes other messages."""

TABLE = re.compile(r"\b(from|join) ([tuT])\b(?: as)?(?: ([xy])\b)?")

PYTHON = """
def keep(batch, names=()):
    return batch.select(["_bq_id", *names])
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    """All of it in one project, built."""
    with LlmServer(lambda body: f"So: {body['messages'][-1]['content']}") as server:
        space = Space(tmp_path_factory.mktemp("c3") / "project", server)
        _write_project(space)
        assert set(statuses(space.run()).values()) == {"success"}
        yield space


@pytest.mark.parametrize("column", COLUMNS)
def test_c3_a_changed_column_reaches_what_reads_it(built: Space, tmp_path: Path, column: str) -> None:
    space = Space.copy_of(built, tmp_path / "edited")
    _change(space, lambda row: row | {column: row[column] + " more"})
    results = space.run()
    ran = {name for name, result in results.items() if result.status != "cached"}
    assert {name for name in SQL if f"sql_{name}" in ran} == {name for name, (_, read) in SQL.items() if column in read}
    assert {name for name in PROMPTS if f"asks_{name}" in ran} == {
        name for name, (_, read, _) in PROMPTS.items() if column in read
    }
    assert _asking(results) == {name for name, (_, _, asked) in PROMPTS.items() if column in asked}
    assert {name for name in COLUMNS if f"python_{name}" in ran} == {column}
    assert not {name for name in ran if name.startswith("below_")} - {f"below_{name}" for name in ran}
    again = space.run()
    assert space.sent == 0
    assert set(statuses(again).values()) == {"cached"}


def test_c3_a_new_column_reaches_stars_and_no_call(built: Space, tmp_path: Path) -> None:
    space = Space.copy_of(built, tmp_path / "edited")
    _change(space, lambda row: row | {"g": "new"})
    ran = {name for name, result in space.run().items() if result.status != "cached"}
    stars = {"star", "from_first", "excluded", "replaced", "qualified_star"}
    assert ran == {f"{place}sql_{name}" for name in stars for place in ("", "below_")}
    assert space.sent == 0


def test_c3_columns_in_another_order_reach_nothing(built: Space, tmp_path: Path) -> None:
    space = Space.copy_of(built, tmp_path / "edited")
    _change(space, lambda row: dict(reversed(row.items())))
    assert set(statuses(space.run()).values()) == {"cached"}


def _asking(results: dict[str, NodeResult]) -> set[str]:
    return {name for name in PROMPTS if results[f"asks_{name}"].counts.new_calls}


def _change(space: Space, change: object) -> None:
    assert callable(change)
    rows = [change(json.loads(line)) for line in space.read(ROWS).splitlines()]
    space.write(ROWS, "".join(json.dumps(row) + "\n" for row in rows))


def _write_project(space: Space) -> None:
    rows = [{"id": number, **{name: f"{name}{number} words" for name in COLUMNS}} for number in range(3)]
    space.write(ROWS, "".join(json.dumps(row) + "\n" for row in rows))
    space.write("project/sources/u.jsonl", "".join(f'{{"id": {number}, "k": "k{number}"}}\n' for number in range(3)))
    space.write("project/bqbuild.yml", "name: c3\nversion: 1\n")
    space.write(
        "project/profiles.yml",
        "default: dev\ntargets:\n  dev:\n    store: .bqbuild\n    llms:\n"
        "      llm: {provider: openai, base_url: \"{{ env_var('LLM_URL') }}\", model: m}\n",
    )
    space.write(
        "project/macros/say.sql",
        "{% macro both(one, other) %}{{ one }} and {{ other }}{% endmacro %}\n"
        "{% macro wrapped() %}[{{ caller() }}]{% endmacro %}\n",
    )
    space.write("prompts/partials/note.md", "Note: {{ f }}\n")
    space.write("prompts/partials/lib.md", "{% macro shout(x) %}{{ x | upper }}{% endmacro %}\n")
    space.write("models/code.py", PYTHON)
    models = [_source("t"), _source("u")]
    for name, (sql, _) in SQL.items():
        space.write(f"models/sql_{name}.sql", "{% set t, u = source('t'), source('u') %}\n" + _with_sources(sql))
        models.append({"name": f"below_sql_{name}", "kind": "sql", "sql": f"from {{{{ ref('sql_{name}') }}}}"})
    for name, (text, _, _) in PROMPTS.items():
        space.write(f"prompts/{name}.md", f"user:\n{name}\n{text}\n")
        models.append(_asks(name))
    for name in COLUMNS:
        code = {"function": "code.py:keep", "reads": [name], "args": {"names": [name]}}
        models.append({"name": f"python_{name}", "kind": "python", "from": "t", **code})
    sources = [model for model in models if "path" in model]
    others = [model for model in models if "path" not in model]
    space.write("models/models.yml", json.dumps({"sources": sources, "models": others}))


def _source(name: str) -> dict[str, object]:
    return {"name": name, "path": f"sources/{name}.jsonl", "key": ["id"]}


def _asks(name: str) -> dict[str, object]:
    output = {"format": "text", "columns": {"said": "string"}}
    shape = {"from": "t", "prompt": name, "llm": "llm", "carry": ["id"], "output": output}
    return {"name": f"asks_{name}", "kind": "synthesize", "matrix": {"grade": ["low"]}, **shape}


def _with_sources(sql: str) -> str:
    """The query with `t` and `u` as references to the sources, under the names that it has for them."""
    return TABLE.sub(lambda found: f"{found[1]} {{{{ {found[2].lower()} }}}} as {found[3] or found[2]}", sql)
