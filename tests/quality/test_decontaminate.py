from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bqbuild.quality.decontaminate import BenchmarkIndex

CORPORA = Path(os.environ.get("BQBUILD_CORPORA", Path(__file__).parents[3] / "shared" / "data"))
BENCH = CORPORA / "bench"
"""Beside the checkout where it is there; tests that need it skip where it is not."""
QUESTION = "Which gas do plants take from the air when they make sugar by the light of the sun?"


def index(*questions: str, ngram: int = 8, name: str = "quiz") -> BenchmarkIndex:
    return BenchmarkIndex(ngram, [(name, [list(questions)])])


def test_a_text_that_quotes_a_question_is_found_with_the_words_it_shares() -> None:
    (reason,) = index(QUESTION).reasons([[f"Teacher: {QUESTION.upper()} Pupil: …"]])
    assert reason == "shares 8 words with quiz: “which gas do plants take from the air”"


def test_a_text_that_shares_fewer_words_than_the_run_is_clean() -> None:
    assert index(QUESTION).reasons([["Which gas do plants take from the soil?"]]) == [None]


def test_the_run_starts_anywhere_in_either_text() -> None:
    (reason,) = index(QUESTION).reasons([["Now make sugar by the light of the sun, please."]])
    assert reason == "shares 8 words with quiz: “make sugar by the light of the sun”"


def test_of_a_short_question_only_the_whole_counts() -> None:
    short = index("What is 2 + 2?")
    assert short.reasons([["what is 2+2", "What is 2 + 2? And what is 3 + 3?", "2"]]) == [
        "is a question of quiz: “what is 2 2”",
        None,
        None,
    ]


def test_in_chinese_a_character_is_a_word() -> None:
    reasons = index("下列有关物质跨膜运输的叙述，正确的是", ngram=13).reasons(
        [["关于细胞：下列有关物质跨膜运输的叙述错误的是", "下列叙述，正确的是"]]
    )
    assert reasons == ["shares 13 words with quiz: “下列有关物质跨膜运输的叙”", None] or reasons[0] == (
        "shares 13 words with quiz: “下列有关物质跨膜运输的叙述”"
    )
    assert reasons[1] is None


def test_latex_commands_are_no_words() -> None:
    formula = index(r"What is the mass of $\mathrm{Na}_2 \mathrm{SO}_4$ in \begin{tabular}{c|c} a \end{tabular} here")
    assert formula.reasons([[r"\mathrm{a} \mathrm{b} \mathrm{c} \mathrm{d} \mathrm{e}"]]) == [None]
    assert formula.reasons([["the mass of Na 2 SO 4 in a here"]]) == [
        "shares 8 words with quiz: “the mass of na 2 so 4 in”"
    ]


def test_columns_are_read_one_after_the_other_but_shorts_match_the_question_only() -> None:
    both = BenchmarkIndex(6, [("quiz", [["Name a noble gas of the air"], ["argon"]])])
    assert both.reasons([["argon", "a noble gas of the air argon it is"]]) == [
        None,
        "shares 6 words with quiz: “a noble gas of the air”",
    ]


def test_the_first_benchmark_is_named_where_several_share_the_words() -> None:
    batches = [("one", [[QUESTION]]), ("two", [[QUESTION]])]
    (reason,) = BenchmarkIndex(8, batches).reasons([[QUESTION]])
    assert "with one:" in str(reason)


def test_the_order_of_the_benchmark_s_rows_changes_nothing() -> None:
    questions = [f"{QUESTION} Variant {number} of the same old thing" for number in range(30)]
    texts = [question.replace("gas", "gas", 1) for question in questions]
    assert index(*questions).reasons([texts]) == index(*reversed(questions)).reasons([texts])


@pytest.mark.parametrize("questions", [(), ("",), ("…",)], ids=["no question", "an empty one", "one without words"])
def test_an_empty_benchmark_contaminates_nothing(questions: tuple[str, ...]) -> None:
    assert index(*questions).reasons([["", "anything at all"]]) == [None, None]


def test_every_benchmark_question_finds_itself() -> None:
    if not BENCH.is_dir():
        pytest.skip("the shared benchmarks are not on this machine")
    lines = (BENCH / "mmlu_stem" / "mmlu_stem.jsonl").read_text("utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines]
    reasons = index(*questions, ngram=13).reasons([questions])
    assert all(reasons)
