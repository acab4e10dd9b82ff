"""The selection grammar, with dbt's results."""

from __future__ import annotations

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
    return {node.name: node for node in nodes}


def _select(*include: str, exclude: tuple[str, ...] = (), selectors: dict[str, str] | None = None) -> Selection:
    nodes = _nodes()
    return select(build_dag(nodes), nodes, include, exclude, selectors or {})


ALL = "raw.books raw.notes seeds stg_books stg_notes questions kept report"

CASES = [
    ("seeds", "seeds"),
    ("shop.marts.core.seeds", "seeds"),
    ("marts.core.seeds", "seeds"),
    ("core.seeds", ""),
    ("marts", "seeds report"),
    ("marts.core", "seeds"),
    ("shop", ALL),
    ("shop.staging", "raw.books raw.notes stg_books stg_notes"),
    ("stg_*", "stg_books stg_notes"),
    ("stg_?ooks", "stg_books"),
    ("stg_[bn]o*", "stg_books stg_notes"),
    ("marts.*", "seeds report"),
    ("shop.*.core.*", "seeds"),
    ("*", ALL),
    ("raw.notes", "raw.notes"),
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
    ("config.meta.tier:1", "stg_notes"),
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
    ("@raw.notes", ALL),
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


def test_an_intersection_that_is_empty_though_its_parts_are_not_says_nothing() -> None:
    assert _select("seeds,report") == Selection(())


@pytest.mark.parametrize("text", ["@seeds+", "@seeds+2", "colour:red", "config:view", "tag.x:y", "selector:none"])
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
