"""The evaluate kind: a row a model and question, and a summary with paired differences from the baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bqbuild.core.errors import BqError, BuildError, StoreError
from bqbuild.core.events import NodeProgress, Warned
from bqbuild.core.records import ID, PARENT, ROOTS
from bqbuild.train.statistics import paired_difference
from tests.nodes.building import Bench, open_bench
from tests.train.tiny import SENTENCES, write_model

SOURCES = """
sources:
  - name: bench
    path: bench.jsonl
    columns: {question: string, choices: json, answer: int, subject: string, level: int}
  - {name: texts, path: bench.jsonl, columns: {text: string, split: string}}
models:
"""
QUESTIONS = [
    {
        "question": f"What is number {number}?",
        "choices": json.dumps(["Water", "A triangle", "Gold", "Iron"]),
        "answer": number % 4,
        "subject": "physics" if number < 5 else "biology",
        "level": number % 2,
    }
    for number in range(8)
]


def files_of(evaluate: str, more: str = "") -> dict[str, str]:
    return {
        "models/models.yml": f"{SOURCES}  - {{name: scores, kind: evaluate, from: bench, {evaluate}}}\n{more}",
        "project/bench.jsonl": json.dumps(QUESTIONS[0]),
    }


def evaluate_once(
    folder: Path,
    evaluate: str = "by: [subject, level], baseline: base",
    rows: list[dict[str, Any]] | None = None,
    more: dict[str, str] | None = None,
    models: str | None = None,
) -> tuple[Bench, list[dict[str, Any]], list[dict[str, Any]]]:
    models = (
        models or f"models: {{base: {write_model(folder / 'base')}, other: {write_model(folder / 'other', seed=1)}}}"
    )
    with open_bench(folder, {**files_of(f"{models}, {evaluate}"), **(more or {})}) as bench:
        built = bench.build("scores", {"bench": bench.write(QUESTIONS if rows is None else rows)})
        return bench, bench.rows(built.table), bench.rows(built.sides["summary"])


def test_every_model_has_a_row_for_every_question(tmp_path: Path) -> None:
    bench, rows, _ = evaluate_once(tmp_path)
    assert sorted({row["model"] for row in rows}) == ["base", "other"]
    assert len(rows) == 16
    assert len({row[ID] for row in rows}) == 16
    for row in rows:
        assert row["correct"] == float(row["choice"] == row["gold"])
        assert row["gold_logprob"] < 0
        assert 0 <= row["gold_probability"] <= 1
        assert row["question_id"] == row[PARENT]
        assert row[ROOTS] == [row["question_id"]]
        assert row["n_choices"] == 4
    done = [event for event in bench.events if isinstance(event, NodeProgress)]
    assert (done[-1].done, done[-1].total, done[-1].unit) == (16, 16, "questions")


def test_the_summary_groups_and_compares_with_the_baseline_question_by_question(tmp_path: Path) -> None:
    _, rows, summary = evaluate_once(tmp_path)
    groupings = [row["grouping"] for row in summary if row["model"] == "other"]
    assert [groupings.count(name) for name in ("all", "benchmark", "subject", "level", "subject, level")] == [
        1,
        1,
        2,
        2,
        4,
    ]
    assert groupings.count("benchmark, subject, level") == 4
    values = {
        model: [
            row["gold_logprob"]
            for row in sorted(rows, key=lambda row: row["question_id"])
            if row["model"] == model and row["subject"] == "physics"
        ]
        for model in ("base", "other")
    }
    (group,) = [
        row for row in summary if (row["model"], row["grouping"], row["subject"]) == ("other", "subject", "physics")
    ]
    expected = paired_difference(values["other"], values["base"])
    assert group["n"] == 5
    assert group["chance"] == 0.25
    assert group["level"] is None
    assert group["gold_logprob"] == pytest.approx(sum(values["other"]) / 5)
    got = [group[f"gold_logprob_difference{bound}"] for bound in ("", "_low", "_high")]
    assert got == pytest.approx([expected.value, expected.low, expected.high])
    (base,) = [row for row in summary if (row["model"], row["grouping"]) == ("base", "all")]
    assert base["accuracy_difference"] is None
    assert base["accuracy_low"] <= base["accuracy"] <= base["accuracy_high"]


def test_equal_weights_under_two_names_do_not_differ(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    models = f"models: {{base: {base}, same: {base}}}"
    _, _, summary = evaluate_once(tmp_path, "baseline: base", models=models)
    (same,) = [row for row in summary if (row["model"], row["grouping"]) == ("same", "all")]
    for measure in ("accuracy", "gold_logprob"):
        assert [same[f"{measure}_difference{bound}"] for bound in ("", "_low", "_high")] == [0.0, 0.0, 0.0]


def test_scores_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    with open_bench(tmp_path, files_of(f"models: {{base: {base}}}, seed: 3")) as bench:
        table = bench.write(QUESTIONS)
        one = bench.build("scores", {"bench": table})
        whole = pa.Table.from_batches(list(bench.store.tables.batches(table)))
        writer = bench.store.tables.writer(whole.schema)
        writer.write(whole.take(list(range(7, -1, -1))))
        assert bench.build("scores", {"bench": writer.commit()}).table.digest == one.table.digest


def test_where_limit_and_few_shot_choose_questions(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    wanted = "from: [{model: bench, name: physics, where: \"subject = 'physics'\", limit: 3}], few_shot: 1"
    files = files_of(f"models: {{base: {base}}}")
    files["models/models.yml"] = files["models/models.yml"].replace("from: bench", wanted)
    with open_bench(tmp_path, files) as bench:
        rows = bench.rows(bench.build("scores", {"bench": bench.write(QUESTIONS)}).table)
        assert [row["benchmark"] for row in rows] == ["physics"] * 3
        few = bench.write(QUESTIONS[4:])
        with pytest.raises(BuildError, match="has 1 questions, which leaves none"):
            bench.build("scores", {"bench": few})


def test_answers_may_be_indices_letters_or_the_choice_itself(tmp_path: Path) -> None:
    rows = [
        {"question": "Which?", "choices": ["4", "Iron", "2"], "answer": answer}
        for answer in ("1", "B", "b", "Iron", "4", "2", "0")
    ]
    _, scored, _ = evaluate_once(tmp_path, "few_shot: 0", rows)
    gold = {row["question_id"]: row["gold"] for row in scored}
    assert [gold[each] for each in sorted(gold)] == [
        expected for _, expected in sorted(zip(_ids(7), [1, 1, 1, 1, 0, 2, 0], strict=True))
    ]


def _ids(count: int) -> list[str]:
    from bqbuild.core.ids import row_id

    return [row_id("test", number) for number in range(count)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": 4}, "`answer` is 4"),
        ({"answer": -1}, "`answer` is -1"),
        ({"answer": None}, "`answer` is None"),
        ({"question": " "}, "`question` is empty"),
        ({"question": None}, "`question` is empty"),
        ({"choices": "not json"}, "is not a list"),
        ({"choices": '["one"]'}, "is not a list"),
        ({"choices": '["a", ""]'}, "is not a list"),
        ({"choices": '["a", null]'}, "is not a list"),
    ],
)
def test_a_row_that_is_no_question_is_an_error_that_names_it(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    schema = pa.schema([("question", pa.string()), ("choices", pa.string()), ("answer", pa.int64())])
    rows = [{"question": "Which?", "choices": '["a", "b"]', "answer": 0, **row}]
    with open_bench(tmp_path, files_of(f"models: {{base: {write_model(tmp_path / 'base')}}}")) as bench:
        table = bench.write(rows, schema)
        with pytest.raises(BuildError, match=message) as caught:
            bench.build("scores", {"bench": table})
    assert _ids(1)[0] in caught.value.message


def test_a_prompt_is_the_context_and_one_with_roles_is_a_chat(tmp_path: Path) -> None:
    plain = {"prompts/put.md": "Question: {{ question }}\nAnswer:"}
    _, default, _ = evaluate_once(tmp_path / "default", "few_shot: 0")
    _, prompted, _ = evaluate_once(tmp_path / "plain", "prompt: put", more=plain)
    assert [row["gold_logprob"] for row in prompted] == [row["gold_logprob"] for row in default]
    chat = {"prompts/put.md": "system:\nBe brief.\nuser:\n{{ question }}"}
    _, chatted, _ = evaluate_once(tmp_path / "chat", "prompt: put", more=chat)
    assert [row["gold_logprob"] for row in chatted] != [row["gold_logprob"] for row in default]


def test_a_chat_prompt_and_few_shot_do_not_go_together(tmp_path: Path) -> None:
    chat = {"prompts/put.md": "system:\nBe brief.\nuser:\n{{ question }}"}
    with pytest.raises(BuildError, match="few_shot and a prompt with roles"):
        evaluate_once(tmp_path, "prompt: put, few_shot: 1", more=chat)


def test_a_trained_model_is_read_from_the_store_and_has_learnt(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    train = f"  - {{name: mid, kind: train, from: texts, base: {base}, seq_len: 32, tokens: 1280, batch_size: 2, "
    train += "learning_rate: 0.01, threads: 1}\n"
    with open_bench(tmp_path, files_of(f"models: {{base: {base}, trained: mid}}, baseline: base", train)) as bench:
        texts = bench.write([{"text": text, "split": "train"} for text in SENTENCES * 3])
        trained = bench.build("mid", {"texts": texts}).table
        questions = [
            {"question": "What rusts?", "choices": ["Iron rusts in wet air", "Gold", "One two"], "answer": 0},
            {"question": "What pumps?", "choices": ["Air", "The heart pumps blood", "Sides"], "answer": 1},
        ]
        inputs = {"bench": bench.write(questions), "mid": trained}
        summary = bench.rows(bench.build("scores", inputs).sides["summary"])
        (row,) = [row for row in summary if (row["model"], row["grouping"]) == ("trained", "all")]
        assert row["gold_logprob_difference"] > 0.3
        for file in (tmp_path / "store").rglob("model.safetensors"):
            file.unlink()
        with pytest.raises(StoreError):
            bench.build("scores", inputs)


def test_a_question_that_is_too_long_is_cut_and_it_is_said(tmp_path: Path) -> None:
    rows = [{"question": "Iron rusts. " * 300, "choices": ["a", "b"], "answer": 0}]
    bench, scored, _ = evaluate_once(tmp_path, "few_shot: 0", rows)
    assert len(scored) == 2
    warnings = [event.message for event in bench.events if isinstance(event, Warned)]
    assert [warning.split(":")[0] for warning in warnings] == ["`base`", "`other`"]


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [("baseline: nobody", "nobody"), ("by: [colour]", "colour")],
)
def test_declarations_that_do_not_fit_the_benchmarks_are_errors(tmp_path: Path, evaluate: str, message: str) -> None:
    with pytest.raises(BqError, match=message):
        evaluate_once(tmp_path, evaluate)
