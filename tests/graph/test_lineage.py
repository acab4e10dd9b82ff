from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bqbuild.config.project import load_project
from bqbuild.core.errors import Where
from bqbuild.core.records import Column, NodeName
from bqbuild.graph.columns import check_columns
from bqbuild.graph.dag import build_dag
from bqbuild.graph.lineage import column_lineage
from bqbuild.graph.sql.origins import column_origins

SCHEMAS = {
    "t": [Column("a", "varchar"), Column("b", "varchar"), Column("c", "varchar")],
    "u.v": [Column("a", "varchar"), Column("d", "varchar")],
}


@pytest.mark.parametrize(
    ("sql", "origins"),
    [
        ("select a, b || c as x from t", {"a": "t.a", "x": "t.b t.c"}),
        ("select * from t", {"a": "t.a", "b": "t.b", "c": "t.c"}),
        ("select * exclude (b) replace (upper(a) as a) from t", {"a": "t.a", "c": "t.c"}),
        ("select a from t where b = 'x' order by c", {"a": "t.a"}),
        ("with x as (select a, b as y from t) select y from x", {"y": "t.b"}),
        ("with t as (select d as a from \"u.v\") select a from t", {"a": "u.v.d"}),
        ("select t.a, d from t join \"u.v\" as o on t.a = o.a", {"a": "t.a", "d": "u.v.d"}),
        ("select a from t union all select d from \"u.v\"", {"a": "t.a u.v.d"}),
        ("select count(*) as n, max(b) as m from t group by a", {"n": "", "m": "t.b"}),
        ("select (select max(d) from \"u.v\" o where o.a = t.a) as m from t", {"m": "u.v.d u.v.a t.a"}),
        ("select row_number() over (partition by a order by b) as n from t", {"n": "t.a t.b"}),
        ("select x from t, unnest([a, b]) as s(x)", {"x": "t.a t.b"}),
        ("select A as Kept, \"B\" from T", {"Kept": "t.a", "B": "t.b"}),
        ("select list_transform([a], lambda z: z || b) as l from t", {"l": "t.a t.b"}),
    ],
)  # fmt: skip
def test_columns_of_sql_are_traced_to_columns_of_inputs(sql: str, origins: Mapping[str, str]) -> None:
    found = column_origins(sql, Where("models/m.sql"), SCHEMAS)
    assert found is not None
    shown = {name.lower(): {f"{table}.{column}".lower() for table, column in pairs} for name, pairs in found.items()}
    assert shown == {name.lower(): set(expected.split()) for name, expected in origins.items()}


def test_what_cannot_be_told_is_none() -> None:
    assert column_origins("select columns('a.*') from t", Where("m.sql"), SCHEMAS) is None
    assert column_origins("select * from unknown", Where("m.sql"), {"unknown": None}) is None


PROJECT = {
    "project/bqbuild.yml": "name: p",
    "project/profiles.yml": "{default: d, targets: {d: {llms: {w: {provider: openai, base_url: http://x, model: m}}}}}",
    "project/sources.lock": "sources:\n  s:\n    a: varchar\n    b: varchar\n",
    "prompts/p.md": "user: {{ a }}",
    "prompts/graded.md": "user: {{ a }} {{ g }}",
    "models/m.yml": """
        sources: [{name: s, path: s.jsonl}]
        models:
          - {name: made, kind: synthesize, from: s, prompt: graded, llm: w, matrix: {g: [1]}, carry: [b],
             output: {format: json, columns: {q: string}, reasoning: why}}
          - {name: better, kind: refine, from: s, prompt: p, llm: w, output: {columns: {b: string}}}
          - {name: voted, kind: annotate, from: s, prompt: p, llm: w, votes: 3,
             output: {format: choice, columns: {level: {scale: [1, 5]}}}}
          - {name: kept, kind: filter, from: made, rules: [{name: r, sql: "q <> ''"}]}
          - {name: mixed, kind: mix, from: [kept, voted], text: "{{ q }} {{ b }}"}
    """,
}


@pytest.mark.parametrize(
    ("node", "column", "origins"),
    [
        ("made", "b", "s.b carried"),
        ("made", "g", ""),
        ("made", "q", "s.a prompt"),
        ("made", "why", "s.a prompt"),
        ("better", "b", "s.a prompt, s.b carried"),
        ("better", "b_before", "s.b carried"),
        ("voted", "level", "s.a prompt"),
        ("voted", "level_agreement", "s.a prompt"),
        ("kept", "q", "made.q carried"),
        ("mixed", "b", "kept.b carried, voted.b carried"),
        ("mixed", "text", "kept.b template, kept.q template, voted.b template"),
        ("mixed", "split", ""),
    ],
)
def test_every_kind_says_what_its_columns_are_made_from(
    node: str, column: str, origins: str, project_dir: Callable[[Mapping[str, str]], Path]
) -> None:
    project = load_project(project_dir(PROJECT))
    columns = check_columns(project, build_dag(project.nodes))
    assert not columns.errors
    lineage = column_lineage(project.nodes[NodeName(node)], project, columns.of)
    assert lineage is not None
    found = ", ".join(f"{origin.parent}.{origin.column} {origin.via}" for origin in lineage[column])
    assert found == origins
