"""The selection grammar, with dbt's results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bqbuild.config.specs import FilterSpec, SourceSpec, SqlSpec, SynthesizeSpec
from bqbuild.core.errors import UsageError, Where
from bqbuild.core.records import Node, NodeName, Ref
from bqbuild.graph.dag import build_dag
from bqbuild.graph.select import Selection, select


def _node(spec: object, kind: str, path: str, parents: str = "") -> Node:
    name = spec.name  # type: ignore[attr-defined]  # every spec has one
    folders = path.split("/")[1:-1]
    refs = tuple(Ref(NodeName(parent)) for parent in parents.split())
    return Node(NodeName(name), kind, spec, refs, Where(path, 1), path, ("shop", *folders, name))


def _sql(name: str, folder: str, parents: str, **settings: object) -> Node:
    spec = SqlSpec.model_validate({"name": name, "sql": "select 1", **settings})
    return _node(spec, "sql", f"models/{folder}{name}.sql", parents)


PATCHES = {"stg_books": "models/schema.yml"}


def _nodes() -> dict[NodeName, Node]:
    llm = {"llm": "writer", "output": {"format": "text", "columns": {"answer": "string"}}}
    judge = {"prompt": "judge_it", "llm": "judge", "output": llm["output"], "accept": "answer = 'yes'"}
    rules = [{"name": "r", "judge": judge}]
    nodes = [
        _node(SourceSpec(name="raw.notes", path=["n.jsonl"], tags=["pii"]), "source", "models/staging/sources.yml"),
        _node(SourceSpec(name="raw.books", path=["b.jsonl"]), "source", "models/staging/sources.yml"),
        _sql("stg_notes", "staging/", "raw.notes", tags=["staging", "daily"], meta={"owner": "ann", "tier": 1}),
        _sql("stg_books", "staging/", "raw.books", tags=["staging"], materialized="view", group="library"),
        _sql("seeds", "marts/core/", "stg_notes stg_books", tags=["dotted.tag"]),
        _node(
            SynthesizeSpec.model_validate(
                {"name": "questions", "kind": "synthesize", "from": "seeds", "prompt": "stem/ask", **llm}
            ),
            "synthesize",
            "models/models.yml",
            "seeds",
        ),
        _node(
            FilterSpec.model_validate({"name": "kept", "kind": "filter", "from": "questions", "rules": rules}),
            "filter",
            "models/models.yml",
            "questions",
        ),
        _sql("report", "marts/", "kept stg_books"),
    ]
    return {node.name: replace(node, patch=PATCHES.get(node.name, "")) for node in nodes}


def _select(*include: str, exclude: tuple[str, ...] = (), selectors: dict[str, Any] | None = None) -> Selection:
    nodes = _nodes()
    return select(build_dag(nodes), nodes, include, exclude, selectors or {})


ALL = "raw.books raw.notes seeds stg_books stg_notes questions kept report"

MODELS = "seeds stg_books stg_notes questions kept report"

CASES = [
    ("seeds", "seeds"),
    ("shop.marts.core.seeds", "seeds"),
    ("marts.core.seeds", "seeds"),
    ("core.seeds", ""),
    ("marts", "seeds report"),
    ("marts.core", "seeds"),
    ("shop", MODELS),
    ("shop.staging", "stg_books stg_notes"),
    ("stg_*", "stg_books stg_notes"),
    ("stg_?ooks", "stg_books"),
    ("stg_[bn]o*", "stg_books stg_notes"),
    ("marts.*", "seeds report"),
    ("shop.*.core.*", "seeds"),
    ("*", MODELS),
    ("raw.notes", ""),
    ("fqn:seeds", "seeds"),
    ("path:models/staging", "raw.books raw.notes stg_books stg_notes"),
    ("path:models/staging/", "raw.books raw.notes stg_books stg_notes"),
    ("models/staging/stg_notes.sql", "stg_notes"),
    ("path:models/*/stg_*.sql", "stg_books stg_notes"),
    ("path:models/**/seeds.sql", "seeds"),
    ("path:models/stag", ""),
    ("seeds.sql", "seeds"),
    ("file:seeds", "seeds"),
    ("file:stg_*", "stg_books stg_notes"),
    ("file:models.yml", "questions kept"),
    ("tag:staging", "stg_books stg_notes"),
    ("tag:da*", "stg_notes"),
    ("tag:dotted.tag", "seeds"),
    ("tag:pii+", "raw.notes stg_notes seeds questions kept report"),
    ("kind:synthesize", "questions"),
    ("kind:s*", "raw.books raw.notes seeds stg_books stg_notes questions report"),
    ("source:raw", "raw.books raw.notes"),
    ("source:raw.notes", "raw.notes"),
    ("source:*", "raw.books raw.notes"),
    ("source:raw.n*+1", "raw.notes stg_notes"),
    ("config.materialized:view", "stg_books"),
    ("config.materialized:v*", ""),
    ("config.meta.owner:ann", "stg_notes"),
    ("config.meta.tier:1", ""),
    ("config.tags:daily", "stg_notes"),
    ("config.volatile:False", "seeds stg_books stg_notes report"),
    ("config.from:seeds", "questions"),
    ("config.nothing:here", ""),
    ("prompt:stem/ask", "questions"),
    ("prompt:stem/*", "questions"),
    ("prompt:judge_it", "kept"),
    ("llm:writer", "questions"),
    ("llm:judge", "kept"),
    ("group:library", "stg_books"),
    ("+seeds", "raw.books raw.notes seeds stg_books stg_notes"),
    ("1+seeds", "seeds stg_books stg_notes"),
    ("0+seeds", "seeds"),
    ("seeds+", "seeds questions kept report"),
    ("seeds+1", "seeds questions"),
    ("seeds+2", "seeds questions kept"),
    ("1+seeds+1", "seeds stg_books stg_notes questions"),
    ("+stg_notes+", "raw.notes stg_notes seeds questions kept report"),
    ("@stg_notes", ALL),
    ("@source:raw.notes", ALL),
    ("config:view", ""),
    ("tag.x:staging", "stg_books stg_notes"),
    ("package:this", ALL),
    ("package:sh?p", ALL),
    ("resource_type:source", "raw.books raw.notes"),
    ("resource_type:model", MODELS),
    ("resource_type:seed", ""),
    ("exposure:x", ""),
    ("metric:*", ""),
    ("source:shop.raw.notes", "raw.notes"),
    ("source:other.raw.*", ""),
    ("stg*s", "stg_books stg_notes"),
    ("path:models/schema.yml", "stg_books"),
    ("path:models/*.yml", "questions kept stg_books"),
    ("models.yml", ""),
    ("selector:c*", "seeds questions"),
    ("@report", ALL),
    ("seeds stg_notes", "seeds stg_notes"),
    ("tag:staging,tag:daily", "stg_notes"),
    ("seeds tag:staging,tag:daily", "seeds stg_notes"),
    ("+seeds,stg_*", "stg_books stg_notes"),
    ("+report,stg_books+", "stg_books seeds questions kept report"),
    ("++seeds", ""),
    ("+", ""),
    ("seeds+report", ""),
    ("", ""),
    ("seeds,", ""),
    ("nothing", ""),
    ("selector:core", "seeds questions"),
    ("+selector:core", "raw.books raw.notes seeds stg_books stg_notes questions"),
    ("selector:both", "seeds questions report"),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[text for text, _ in CASES])
def test_a_selection_gives_what_dbt_gives(text: str, expected: str) -> None:
    selectors = {"core": "seeds+1", "both": "selector:core report"}
    assert set(_select(text, selectors=selectors).names) == set(expected.split())


def test_names_come_in_topological_order() -> None:
    assert _select("report", "+seeds").names == ("raw.books", "raw.notes", "stg_books", "stg_notes", "seeds", "report")


def test_nothing_selected_means_everything() -> None:
    assert set(_select().names) == set(ALL.split())


def test_exclude_is_taken_away_after_graph_operators() -> None:
    assert _select("+seeds", exclude=("source:*",)).names == ("stg_books", "stg_notes", "seeds")
    assert _select(exclude=("kept+", "stg_*")).names == ("raw.books", "raw.notes", "seeds", "questions")


def test_texts_of_several_options_are_a_union() -> None:
    assert _select("seeds", "report").names == ("seeds", "report")


@pytest.mark.parametrize("text", ["++seeds", "+", "seeds+report", "nothing", "tag:nope", ""])
def test_what_matches_nothing_warns(text: str) -> None:
    assert len(_select(text).warnings) == 1


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("sedes", "seeds"),
        ("tag:stagin", "staging"),
        ("llm:writter", "writer"),
        ("path:models/stagin", "models/staging"),
    ],
)
def test_the_warning_offers_the_nearest_name(text: str, nearest: str) -> None:
    assert f"did you mean '{nearest}'?" in _select(text).warnings[0]


def test_an_intersection_that_is_empty_though_its_parts_are_not_says_so() -> None:
    found = _select("seeds,report")
    assert found == Selection((), ("'seeds,report' matches no model: its parts do, but have none in common",))


def test_the_name_of_a_selector_is_no_model_and_the_warning_says_how_to_name_it() -> None:
    assert "did you mean 'selector:core'?" in _select("core", selectors={"core": "seeds"}).warnings[0]


@pytest.mark.parametrize("text", ["++seeds", "seeds+report", "@@seeds", "seeds++"])
def test_the_warning_of_malformed_operators_names_the_right_ones(text: str) -> None:
    assert _select(text).warnings == (f"'{text}' matches no model: operators are +m, m+, 2+m, m+3 and @m",)


def test_the_name_of_a_source_is_no_model_and_the_warning_says_how_to_name_it() -> None:
    assert "did you mean 'source:raw.notes'?" in _select("raw.notes+").warnings[0]


@pytest.mark.parametrize(
    "text",
    [
        "@seeds+",
        "@seeds+2",
        "@seeds+0",
        "colour:red",
        "selector:none",
        "source:a.b.c.d",
        "resource_type:table",
        "path:",
        "path:.",
        "/models",
        "models/**x",
    ],
)
def test_what_the_grammar_forbids_is_an_error(text: str) -> None:
    with pytest.raises(UsageError):
        _select(text)


def test_an_unknown_method_offers_the_nearest() -> None:
    with pytest.raises(UsageError, match="knd") as caught:
        _select("knd:sql")
    assert caught.value.hint == "did you mean 'kind'?"


def test_selectors_that_name_each_other_are_shown_as_a_path() -> None:
    with pytest.raises(UsageError, match="a → b → a"):
        _select("selector:a", selectors={"a": "selector:b", "b": "selector:a"})


LONG: list[tuple[str, Any, str]] = [
    ("text", "+seeds,stg_* kept", "stg_books stg_notes kept"),
    ("one pair", {"tag": "daily"}, "stg_notes"),
    ("method and value", {"method": "tag", "value": "daily"}, "stg_notes"),
    ("keys of a config", {"method": "config.meta.owner", "value": "ann"}, "stg_notes"),
    ("numbers are compared as numbers", {"method": "config.meta.tier", "value": 1}, "stg_notes"),
    ("parents", {"method": "fqn", "value": "seeds", "parents": True, "parents_depth": 1}, "seeds stg_books stg_notes"),
    ("children", {"method": "fqn", "value": "seeds", "children": True, "children_depth": 1}, "seeds questions"),
    ("all children", {"method": "fqn", "value": "seeds", "children": True}, "seeds questions kept report"),
    ("a depth alone", {"method": "fqn", "value": "seeds", "parents_depth": 1}, "seeds"),
    ("depth 0 is no limit", {"method": "fqn", "value": "kept", "children": True, "children_depth": 0}, "kept report"),
    ("childrens_parents", {"method": "fqn", "value": "stg_notes", "childrens_parents": True}, ALL),
    ("union", {"union": ["seeds", {"tag": "daily"}]}, "seeds stg_notes"),
    ("intersection", {"intersection": [{"tag": "staging"}, {"tag": "daily"}]}, "stg_notes"),
    ("exclude in a union", {"union": [{"tag": "staging"}, "kept", {"exclude": ["stg_books"]}]}, "stg_notes kept"),
    ("exclude in an intersection", {"intersection": ["+report", "fqn:*", {"exclude": ["stg_*", "kept+"]}]},
     "seeds questions"),
    ("exclude of a criterion", {"method": "tag", "value": "staging", "exclude": [{"tag": "daily"}]}, "stg_books"),
    ("no parts", {"intersection": []}, ""),
    ("exclude beside a method in a list",
     {"union": [{"tag": "staging"}, {"method": "fqn", "value": "kept", "exclude": ["stg_books"]}]}, "stg_notes"),
    ("nested", {"union": [{"intersection": [{"tag": "staging"}, {"union": [{"tag": "daily"}]}]}, "report"]},
     "stg_notes report"),
    ("another selector", {"union": [{"method": "selector", "value": "core"}, "report"]}, "seeds questions report"),
    ("another selector with its parents", {"method": "selector", "value": "core", "parents": True},
     "raw.books raw.notes stg_books stg_notes seeds questions"),
]  # fmt: skip


@pytest.mark.parametrize(("definition", "expected"), [case[1:] for case in LONG], ids=[case[0] for case in LONG])
def test_a_selector_in_dbts_long_form_gives_what_dbt_gives(definition: object, expected: str) -> None:
    found = _select("selector:it", selectors={"it": definition, "core": "seeds+1"})
    assert set(found.names) == set(expected.split())


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"union": ["a"], "intersection": ["b"]}, "only one of `union` and `intersection`"),
        ({"union": "a"}, "`union` takes a list"),
        ({"union": ["a", {"exclude": ["b"]}, {"exclude": ["c"]}]}, "can have one `exclude`"),
        ({"exclude": ["a"]}, "no selection method 'exclude'"),
        ({"method": "tag"}, "no selection method 'method'"),
        ({"method": "tag", "parents": True}, "has `method` and `value`"),
        ({"method": "tag", "value": "x", "parent": True}, "unknown key 'parent'"),
        ({"method": "tag", "value": "x", "parents": "yes"}, "true or false"),
        ({"method": "tag", "value": "x", "parents": True, "parents_depth": "one"}, "a number of edges"),
        ({"method": "tag", "value": "x", "children": True, "childrens_parents": True}, "do not go together"),
        ({"colour": "red"}, "no selection method 'colour'"),
        ("@x+", "do not go together"),
        (["a"], "text or a mapping"),
        (7, "text or a mapping"),
    ],
    ids=str,
)
def test_a_selector_that_cannot_be_read_is_an_error(definition: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _select("selector:it", selectors={"it": definition})
