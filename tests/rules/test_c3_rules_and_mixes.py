"""C3 through `where`, `carry`, the rules of a filter, mixes, training and scoring."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bqbuild.core.records import NodeName
from bqbuild.graph.reads import reads_of
from tests.llm_server import LlmServer
from tests.mutations import MODELS, NOTES, answer
from tests.space import Space, statuses

# of the columns that `clean` hands on, `year` is read by nobody but carried by all
NARROW = "    matrix: {grade: [primary, graduate]}\n"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    """The project `mutations`, built once."""
    with LlmServer(answer) as server:
        space = Space.copy("mutations", tmp_path_factory.mktemp("c3") / "built", server)
        assert set(statuses(space.run()).values()) == {"success"}
        yield space


@pytest.fixture
def built(origin: Space, tmp_path: Path) -> Space:
    """A copy of it, to be edited."""
    return Space.copy_of(origin, tmp_path / "edited")


def change_years(space: Space) -> None:
    """Change a column that is carried all the way down."""
    rows = [json.loads(line) for line in space.read(NOTES).splitlines()]
    space.write(NOTES, "".join(json.dumps(row | {"year": row["year"] + 1}) + "\n" for row in rows))


def test_c3_a_carried_column_is_written_again_all_the_way_down_without_a_call(built: Space) -> None:
    change_years(built)
    results = built.run()
    assert built.sent == 0
    assert set(statuses(results).values()) == {"success"}
    assert {row["year"] for row in built.rows("select year from blend where year is not null")} <= {
        1945,
        1869,
        1961,
        1914,
    }


def test_c3_what_is_not_carried_stops_where_it_is_left_behind(built: Space) -> None:
    built.edit(MODELS, NARROW, NARROW + "    carry: [topic, words]\n")
    built.run()
    change_years(built)
    results = built.run()
    assert built.sent == 0
    assert {name for name, status in statuses(results).items() if status == "success"} == {"clean", "scored"}


@pytest.mark.parametrize(("where", "runs"), [("year > 1900", True), ("YEAR > 1900", True), ("topic <> 'x'", False)])
def test_c3_a_predicate_reads_its_columns_and_not_the_others(built: Space, where: str, runs: bool) -> None:
    built.edit(MODELS, NARROW, NARROW + f'    carry: [topic, words]\n    where: "{where}"\n')
    built.run()
    change_years(built)
    results = built.run()
    assert (results["questions"].status == "success") == runs
    assert built.sent == 0  # nobody passed the line


def test_c3_a_predicate_that_lets_one_more_row_pass_asks_for_that_row(built: Space) -> None:
    built.edit(MODELS, NARROW, NARROW + '    carry: [topic, words]\n    where: "year > 1900"\n')
    built.run()
    rows = [json.loads(line) for line in built.read(NOTES).splitlines()]
    rows[1]["year"] = 1968  # Japan
    built.write(NOTES, "".join(json.dumps(row) + "\n" for row in rows))
    results = built.run()
    # they were asked for when there was no predicate
    assert built.sent == 0
    assert results["questions"].counts.rows == 8


def test_c3_an_accept_may_read_a_column_that_is_not_carried(built: Space) -> None:
    built.edit(
        MODELS,
        "    params: {max_tokens: 200}\n",
        '    carry: [question, grade]\n    accept: "words > 3 and year > 0"\n',
    )
    built.edit(MODELS, "length(question) > 3 and words > 0", "length(question) > 3")
    assert set(statuses(built.run()).values()) <= {"success", "cached"}
    change_years(built)
    results = built.run()
    assert results["answers"].status == "success"
    assert built.sent == 0
    assert "year" not in built.rows("select * from answers")[0]


@pytest.mark.parametrize(
    "rule",
    [
        "{name: more, sql: \"topic <> 'Atlantis'\"}",
        "{name: more, dedup: {columns: [topic, grade], keep: words desc}}",
        "{name: more, dedup: {columns: [answer], method: minhash}}",
        "{name: more, quality: {column: answer, min_chars: 2}}",
        "{name: more, decontaminate: {against: [extras], columns: [question], benchmark_columns: [text], ngram: 3}}",
    ],
)
def test_c3_a_rule_more_or_another_asks_the_judge_about_no_row_again(built: Space, rule: str) -> None:
    built.edit(MODELS, "      - {name: unique_question", f"      - {rule}\n      - {{name: unique_question")
    results = built.run()
    assert built.sent == 0
    assert {name for name, status in statuses(results).items() if status == "success"} <= {"kept", "blend"}


def test_c3_decontamination_reads_the_columns_of_a_benchmark_that_it_names(built: Space) -> None:
    rule = "{name: more, decontaminate: {against: [notes], columns: [question], benchmark_columns: [topic], ngram: 1}}"
    built.edit(MODELS, "      - {name: unique_question", f"      - {rule}\n      - {{name: unique_question")
    built.edit("models/clean.sql", "select topic, text, year", "select topic, text, 1 as year")
    built.run()
    change_years(built)  # a column of the benchmark that is not compared
    assert set(statuses(built.run()).values()) == {"cached"}


@pytest.mark.parametrize(
    ("declaration", "parent", "columns"),
    [
        ("{name: n, kind: train, from: blend, tokens: 64}", "blend", {"text", "split"}),
        ("{name: n, kind: train, from: blend, tokens: 64, text: answer, split: null}", "blend", {"answer"}),
        (
            "{name: n, kind: evaluate, from: [{model: kept, choices: grade, where: words > 1}], by: [topic], "
            "models: {small: ./none}}",
            "kept",
            {"question", "grade", "answer", "words", "topic"},
        ),
        (
            "{name: n, kind: evaluate, from: [{model: kept, choices: grade}], prompt: label, models: {small: ./none}}",
            "kept",
            {"question", "grade", "answer"},
        ),
        (
            "{name: n, kind: mix, from: kept, by: [topic], weights: {from: clean, column: year}}",
            "clean",
            {"topic", "year"},
        ),
    ],
)
def test_c3_training_and_scoring_read_the_columns_that_they_name(
    built: Space, declaration: str, parent: str, columns: set[str]
) -> None:
    built.write("models/more.yml", f"models:\n  - {declaration}\n")
    with built.session() as session:
        node = session.node(NodeName("n"))
        read = reads_of(node, session.project, dict.fromkeys(map(str, node.refs)))[parent]
    assert read.columns == columns
