from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bqbuild.core.errors import BuildError, ProjectError, ProviderError
from bqbuild.core.records import CALLS, ID, ROOTS, ChatRequest
from bqbuild.nodes.filter import FilterKind
from bqbuild.nodes.rejects import REASON, RULE
from tests.nodes.workbench import Workbench

JUDGE: dict[str, Any] = {
    "name": "judge",
    "judge": {
        "prompt": "judge",
        "llm": "critic",
        "output": {"format": "choice", "columns": {"verdict": {"values": ["good", "bad"]}}},
        "accept": "verdict = 'good'",
    },
}


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


def declared(*rules: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "kept", "kind": "filter", "from": "rows", "rules": list(rules)}


def funnel(
    bench: Workbench, rows: Sequence[Mapping[str, Any]], *rules: Mapping[str, Any], **others: Any
) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """The ids kept, and the rule and the reason of each id rejected."""
    built = bench.build(FilterKind(), declared(*rules), {"rows": bench.table(rows), **others})
    rejects = {row[ID]: (row[RULE], row[REASON]) for row in bench.rows(built.sides["rejects"])}
    return [row[ID] for row in bench.rows(built.table)], rejects


def questions(*texts: str | None) -> list[dict[str, Any]]:
    return [{"question": text, ID: f"q{number}"} for number, text in enumerate(texts)]


def test_a_row_leaves_at_the_first_rule_it_does_not_pass(bench: Workbench) -> None:
    kept, rejects = funnel(
        bench,
        questions("What is it?", "Eh?", None, "Tell me."),
        {"name": "long", "sql": "length( question )>3"},
        {"name": "asks", "sql": "question LIKE '%?'"},
    )
    assert kept == ["q0"]
    assert rejects == {
        "q1": ("long", "`length(question) > 3` is false"),
        "q2": ("long", "`length(question) > 3` is NULL"),
        "q3": ("asks", "`question LIKE '%?'` is false"),
    }


def test_what_users_write_may_end_in_a_comment(bench: Workbench) -> None:
    rules: list[dict[str, Any]] = [
        {"name": "long", "sql": "length(question) > 1 -- really"},
        {"name": "once", "dedup": {"columns": ["question"], "keep": "question -- any"}},
        {**JUDGE, "judge": {**JUDGE["judge"], "accept": "verdict = 'good' -- only"}},
    ]
    built = bench.build(FilterKind(), declared(*rules), {"rows": bench.table(questions("a", "bb"))}, lambda _: "good")
    assert [row[ID] for row in bench.rows(built.table)] == ["q1"]


def test_kept_and_rejected_rows_carry_all_columns_and_their_lineage(bench: Workbench) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "Why?", "answer": 7, CALLS: ["c1"], ROOTS: ["r1", "r2"]},
        {"question": "x", "answer": None},
    ]
    built = bench.build(FilterKind(), declared({"name": "r", "sql": "answer > 1"}), {"rows": bench.table(rows)})
    kept, rejected = bench.rows(built.table), bench.rows(built.sides["rejects"])
    assert kept[0] | {CALLS: ["c1"], ROOTS: ["r1", "r2"], "question": "Why?", "answer": 7} == kept[0]
    assert set(rejected[0]) == {*kept[0], RULE, REASON}
    assert rejected[0]["question"] == "x"
    assert built.sides["errors"].rows == 0  # there is no judge


def test_json_columns_are_json_to_a_predicate(bench: Workbench) -> None:
    schema = {"meta": pa.field("meta", pa.string(), metadata={b"bqbuild.type": b"json"})}
    writer_schema = pa.schema([schema["meta"], (ID, pa.string()), (ROOTS, pa.list_(pa.string()))])
    writer = bench.store.tables.writer(writer_schema)
    rows = [{"meta": '{"lang": "en"}', ID: "a", ROOTS: []}, {"meta": '{"lang": "fr"}', ID: "b", ROOTS: []}]
    writer.write(pa.RecordBatch.from_pylist(rows, schema=writer_schema))
    built = bench.build(
        FilterKind(),
        declared({"name": "r", "sql": "meta.lang IS NOT NULL AND meta->>'lang' = 'en'"}),
        {"rows": writer.commit()},
    )
    assert [row[ID] for row in bench.rows(built.table)] == ["a"]
    assert built.table.columns[0].type == "json"


def test_exact_dedup_keeps_the_preferred_row_and_then_the_lowest_id(bench: Workbench) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "a", "score": 1, ID: "3"},
        {"question": "a", "score": 2, ID: "2"},
        {"question": "a", "score": 2, ID: "1"},
        {"question": None, "score": 1, ID: "5"},
        {"question": None, "score": 1, ID: "4"},
        {"question": "A", "score": 0, ID: "6"},
    ]
    rule = {"name": "once", "dedup": {"columns": ["question"], "keep": "score DESC"}}
    kept, rejects = funnel(bench, rows, rule)
    assert sorted(kept) == ["1", "4", "6"]
    assert rejects == {
        "2": ("once", "duplicate of 1"),
        "3": ("once", "duplicate of 1"),
        "5": ("once", "duplicate of 4"),
    }


def test_dedup_compares_the_columns_together(bench: Workbench) -> None:
    rows = [{"a": "x", "b": 1}, {"a": "x", "b": 2}, {"a": "x", "b": 1}]
    kept, _ = funnel(bench, rows, {"name": "once", "dedup": {"columns": ["a", "b"]}})
    assert len(kept) == 2


def test_dedup_sees_the_survivors_of_earlier_rules_only(bench: Workbench) -> None:
    rows = [{"q": "a", "ok": False, ID: "0"}, {"q": "a", "ok": True, ID: "1"}]
    kept, rejects = funnel(bench, rows, {"name": "ok", "sql": "ok"}, {"name": "once", "dedup": {"columns": ["q"]}})
    assert kept == ["1"]
    assert rejects["0"][0] == "ok"


def test_near_duplicates_go_and_the_preferred_stays(bench: Workbench) -> None:
    base = " ".join(f"word{number}" for number in range(60))
    rows: list[dict[str, Any]] = [
        {"text": base + " one", "n": 1, ID: "a"},
        {"text": base + " two", "n": 9, ID: "b"},
        {"text": "something else entirely", "n": 5, ID: "c"},
    ]
    rule = {"name": "near", "dedup": {"columns": ["text"], "method": "minhash", "keep": "n DESC"}}
    kept, rejects = funnel(bench, rows, rule)
    assert sorted(kept) == ["b", "c"]
    assert rejects == {"a": ("near", "duplicate of b")}


def test_rows_that_share_words_with_a_benchmark_go(bench: Workbench) -> None:
    quiz = "Which gas do plants take from the air when they make sugar"
    benchmark = bench.table([{"problem": quiz, "choices": ["oxygen", "carbon dioxide"]}])
    rule = {
        "name": "clean",
        "decontaminate": {
            "against": ["quiz"],
            "columns": ["question", "answer"],
            "benchmark_columns": ["question", "problem"],
            "ngram": 8,
        },
    }
    rows: list[dict[str, Any]] = [
        {"question": "Hm", "answer": f"As they say: {quiz.lower()}!", ID: "0"},
        {"question": "Which gas is green?", "answer": None, ID: "1"},
    ]
    kept, rejects = funnel(bench, rows, rule, quiz=benchmark)
    assert kept == ["1"]
    assert rejects["0"] == ("clean", "shares 8 words with quiz: “which gas do plants take from the air”")


def test_a_benchmark_without_any_of_the_columns_is_an_error(bench: Workbench) -> None:
    rule = {
        "name": "clean",
        "decontaminate": {"against": ["quiz"], "columns": ["q"], "benchmark_columns": ["question", "text"]},
    }
    with pytest.raises(BuildError, match="`quiz` has none of the columns `question`, `text`") as raised:
        funnel(bench, [{"q": "a"}], rule, quiz=bench.table([{"problem": "x"}]))
    assert raised.value.hint == "it has problem"


def test_languages_are_a_rule(bench: Workbench) -> None:
    pytest.importorskip("lingua", reason="the extra `language` is not installed")
    rows = questions("What is the powerhouse of the cell?", "Bonjour, comment allez-vous aujourd'hui ?", None)
    kept, rejects = funnel(bench, rows, {"name": "english", "language": {"column": "question", "allow": ["en"]}})
    assert kept == ["q0"]
    assert rejects["q1"] == ("english", "language is fr")
    assert rejects["q2"] == ("english", "no language recognised")


def test_quality_signals_are_a_rule(bench: Workbench) -> None:
    rows = questions("fine enough", "#### ####", None)
    kept, rejects = funnel(
        bench, rows, {"name": "q", "quality": {"column": "question", "min_chars": 3, "max_symbol_ratio": 0.5}}
    )
    assert kept == ["q0"]
    assert rejects == {
        "q1": ("q", "symbols 1.00, more than 0.5"),
        "q2": ("q", "0 characters, fewer than 3"),
    }


def test_a_judge_keeps_what_it_accepts_and_rejects_what_it_cannot_judge(bench: Workbench) -> None:
    def reply(request: ChatRequest) -> str:
        text = request.messages[0].content
        return "good" if "fine" in text else "bad" if "poor" in text else "I would rather not say"

    rows = questions("a fine one", "a poor one", "an odd one")
    built = bench.build(FilterKind(), declared(JUDGE), {"rows": bench.table(rows)}, reply)
    assert [row[ID] for row in bench.rows(built.table)] == ["q0"]
    rejects = {row[ID]: (row[RULE], row[REASON]) for row in bench.rows(built.sides["rejects"])}
    assert rejects == {
        "q1": ("judge", 'judged verdict = "bad"'),
        "q2": ("judge", "no usable verdict: unparsable"),
    }
    (error,) = bench.rows(built.sides["errors"])
    assert (error["cell"], error["reason"], error["answered"]) == ("judge", "unparsable", True)
    assert built.incomplete == 0


def test_a_row_without_an_answer_is_in_neither_table_and_waits(bench: Workbench) -> None:
    def reply(request: ChatRequest) -> str:
        if "lost" in request.messages[0].content:
            raise ProviderError("the server is down", kind="transport")
        return "good"

    rows = questions("here", "lost", "there", "lost too")
    rules = [JUDGE, {"name": "once", "dedup": {"columns": ["question"]}}]
    built = bench.build(FilterKind(), declared(*rules), {"rows": bench.table(rows)}, reply)
    assert built.incomplete == 2
    assert [row[ID] for row in bench.rows(built.table)] == ["q0", "q2"]
    assert bench.rows(built.sides["rejects"]) == []
    assert [row["answered"] for row in bench.rows(built.sides["errors"])] == [False, False]


def test_only_survivors_are_judged(bench: Workbench) -> None:
    rows = questions("a long question", "eh", "a long question")
    bench.build(
        FilterKind(),
        declared(
            {"name": "long", "sql": "length(question) > 3"}, {"name": "once", "dedup": {"columns": ["question"]}}, JUDGE
        ),
        {"rows": bench.table(rows)},
        lambda request: "good",
    )
    assert len(bench.asked) == 1


def test_accept_sees_the_row_and_the_verdict(bench: Workbench) -> None:
    rule = {
        "name": "score",
        "judge": {
            **JUDGE["judge"],
            "output": {"format": "json", "columns": {"score": {"scale": [1, 5]}}},
            "accept": "score >= minimum",
        },
    }
    rows = [{"question": "a", "minimum": 3, ID: "0"}, {"question": "b", "minimum": 5, ID: "1"}]
    built = bench.build(FilterKind(), declared(rule), {"rows": bench.table(rows)}, lambda request: '{"score": 4}')
    assert [row[ID] for row in bench.rows(built.table)] == ["0"]
    assert bench.rows(built.sides["rejects"])[0][REASON] == "judged score = 4"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"name": "r", "sql": "questoin = 'a'"}, "rule `r`: Binder Error"),
        ({"name": "r", "sql": "question::int > 3"}, "rule `r`: Conversion Error"),
        ({"name": "r", "dedup": {"columns": ["questoin"]}}, "rule `r` reads `questoin`"),
        ({"name": "r", "quality": {"column": "text", "min_chars": 1}}, "rule `r` reads `text`"),
        ({"name": "r", "dedup": {"columns": ["question"], "keep": "nothing"}}, "rule `r`: Binder Error"),
    ],
    ids=["unknown column", "bad cast", "dedup column", "quality column", "keep column"],
)
def test_a_rule_that_does_not_fit_the_data_says_where_it_is_written(
    bench: Workbench, rule: dict[str, Any], message: str
) -> None:
    with pytest.raises(BuildError, match=message) as raised:
        funnel(bench, questions("a", "b"), rule)
    assert str(raised.value.where) == "models/m.yml:3"


@pytest.mark.parametrize("predicate", ["random() < 0.5", "made < now()", "read_text('x') = ''"])
def test_a_rule_is_a_function_of_the_row(bench: Workbench, predicate: str) -> None:
    with pytest.raises(ProjectError):
        funnel(bench, questions("a"), {"name": "r", "sql": predicate})


@pytest.mark.parametrize(
    "keep",
    ["(FROM 'secret.csv')", "question LIMIT 1", "random()", "question) OR (1"],
    ids=["file", "limit", "chance", "open"],
)
def test_the_preferred_row_is_named_by_its_columns_and_nothing_else(bench: Workbench, keep: str) -> None:
    with pytest.raises(ProjectError):
        funnel(bench, questions("a"), {"name": "r", "dedup": {"columns": ["question"], "keep": keep}})


def test_a_filter_of_no_rows_makes_no_rows(bench: Workbench) -> None:
    built = bench.build(
        FilterKind(),
        declared(
            {"name": "sql", "sql": "question = 'a'"},
            {"name": "exact", "dedup": {"columns": ["question"]}},
            {"name": "near", "dedup": {"columns": ["question"], "method": "minhash"}},
            {"name": "quality", "quality": {"column": "question", "min_chars": 1}},
            JUDGE,
        ),
        {"rows": bench.table([], {"question": pa.string()})},
    )
    assert built.table.rows == built.sides["rejects"].rows == built.sides["errors"].rows == 0
    assert built.table.columns[0].name == "question"


def test_a_filter_of_rejects_makes_rejects_of_its_own(bench: Workbench) -> None:
    rows = questions("a", "bb")
    first = bench.build(FilterKind(), declared({"name": "one", "sql": "false"}), {"rows": bench.table(rows)})
    again = bench.build(
        FilterKind(),
        declared({"name": "two", "sql": "_bq_rule = 'one' AND length(question) > 1"}),
        {"rows": first.sides["rejects"]},
    )
    assert bench.rows(again.table)[0][RULE] == "one"
    assert bench.rows(again.sides["rejects"])[0][RULE] == "two"


def test_the_order_and_the_files_of_the_input_change_nothing(bench: Workbench) -> None:
    rng = random.Random(0)
    base = [" ".join(f"w{rng.randrange(5000)}" for _ in range(40)) for _ in range(60)]
    rows: list[dict[str, Any]] = [
        {"question": f"{base[number % 60]} {'x' * (number % 3)}", "n": number % 5, ID: f"id{number}", ROOTS: []}
        for number in range(300)
    ]
    benchmark = bench.table([{"question": text} for text in base[:5]])
    rules = declared(
        {"name": "sql", "sql": "n < 4"},
        {"name": "exact", "dedup": {"columns": ["question"], "keep": "n"}},
        {"name": "near", "dedup": {"columns": ["question"], "method": "minhash", "keep": "n DESC"}},
        {
            "name": "clean",
            "decontaminate": {"against": ["b"], "columns": ["question"], "benchmark_columns": ["question"]},
        },
    )
    seen = set()
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        built = bench.build(FilterKind(), rules, {"rows": bench.table(rows, batch=7 + 50 * seed), "b": benchmark})
        seen.add((built.table.digest, built.sides["rejects"].digest, built.table.rows, built.sides["rejects"].rows))
    assert len(seen) == 1
    assert next(iter(seen))[2:] == (44, 256)
