"""The train kind: its table is the curve, its weights open again, and a killed run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bqbuild.core.errors import BqError, BuildError
from bqbuild.core.events import Event, NodeProgress
from bqbuild.core.hashing import Digest
from bqbuild.core.records import Table
from bqbuild.train.language_model import open_model, open_tokenizer
from tests.nodes.building import Bench, open_bench
from tests.train.tiny import CONFIG, SENTENCES, write_model

MODELS = """
sources:
  - {{name: texts, path: texts.jsonl, format: jsonl, license: CC0-1.0, columns: {{text: string, split: string}}}}
models:
  - name: midtrain
    kind: train
    from: texts
    base: {base}
    seq_len: 32
    tokens: 1280
    batch_size: 2
    learning_rate: 0.01
    eval_every: 10
    checkpoint_every: 5
    threads: 1
{more}
"""
ROWS = [
    {"text": text, "split": "heldout" if number < 2 else "train"}
    for number, text in enumerate(SENTENCES[:2] + SENTENCES * 3)
]


def files_of(base: object, more: str = "") -> dict[str, str]:
    lines = "\n".join(f"    {line}" for line in more.splitlines())
    return {
        "models/models.yml": MODELS.format(base=json.dumps(base), more=lines),
        "project/texts.jsonl": "\n".join(map(json.dumps, ROWS)),
    }


def train_once(
    folder: Path, rows: list[dict[str, Any]], more: str = "", schema: pa.Schema | None = None
) -> tuple[Bench, list[dict[str, Any]]]:
    base = write_model(folder / "base")
    with open_bench(folder, files_of(str(base), more)) as bench:
        built = bench.build("midtrain", {"texts": bench.write(rows, schema)})
        return bench, bench.rows(built.table)


def test_the_table_is_the_curve_and_its_last_row_names_the_weights(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bench, curve = train_once(tmp_path, ROWS)
    assert capfd.readouterr() == ("", "")
    assert [row["step"] for row in curve] == list(range(21))
    assert [row["checkpoint"] is not None for row in curve] == [False] * 20 + [True]
    assert [row["step"] for row in curve if row["heldout_loss"] is not None] == [0, 10, 20]
    assert curve[20]["heldout_loss"] < curve[0]["heldout_loss"] - 1
    folder = bench.store.folders.find(Digest(curve[20]["checkpoint"]))
    assert folder is not None
    assert open_model(folder).config.hidden_size == CONFIG["hidden_size"]
    assert open_tokenizer(folder).eos_token == "<|end|>"
    steps = [event for event in bench.events if isinstance(event, NodeProgress)]
    assert [(event.done, event.total, event.unit) for event in steps] == [(step, 20, "steps") for step in range(21)]


def test_the_model_card_tells_data_lineage_settings_and_losses(tmp_path: Path) -> None:
    bench, curve = train_once(tmp_path, ROWS)
    folder = bench.store.folders.find(Digest(curve[20]["checkpoint"]))
    assert folder is not None
    card = (folder / "README.md").read_text("utf-8")
    assert "| `texts` | source |" in card
    assert "CC0-1.0" in card
    assert "| training | 15 |" in card
    assert "| held out | 2 |" in card
    assert f"{curve[20]['heldout_loss']:.4f}" in card
    assert '"seq_len": 32' in card
    assert str(tmp_path) not in card


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    _, one = train_once(tmp_path / "one", ROWS)
    _, other = train_once(tmp_path / "other", ROWS[::-1])
    names = ("step", "loss", "heldout_loss", "grad_norm")
    assert [[row[name] for name in names] for row in one] == [[row[name] for name in names] for row in other]


def test_a_killed_build_goes_on_from_its_checkpoint_to_the_same_table(tmp_path: Path) -> None:
    _, whole = train_once(tmp_path / "whole", ROWS)
    script = f"""
from pathlib import Path
from tests.nodes.test_train import kill_in_step
kill_in_step(Path({str(tmp_path / "cut")!r}), 13)
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -signal.SIGKILL
    bench, curve = train_once(tmp_path / "cut", ROWS)
    done = [event.done for event in bench.events if isinstance(event, NodeProgress)]
    assert done == list(range(11, 21))
    assert [row["loss"] for row in curve] == [row["loss"] for row in whole]


def kill_in_step(folder: Path, step: int) -> None:
    """Build, and end this process the hard way after that step."""

    def end(event: Event) -> None:
        if isinstance(event, NodeProgress) and event.done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    base = write_model(folder / "base")
    with open_bench(folder, files_of(str(base))) as bench:
        bench.build("midtrain", {"texts": bench.write(ROWS)}, end)


def test_a_config_trains_from_scratch_with_the_tokenizer_that_is_named(tmp_path: Path) -> None:
    tokenizer = write_model(tmp_path / "tokenizer")
    more = f"tokenizer: {tokenizer}"
    with open_bench(tmp_path, files_of({**CONFIG, "hidden_size": 48}, more)) as bench:
        curve = bench.rows(bench.build("midtrain", {"texts": bench.write(ROWS)}).table)
        folder = bench.store.folders.find(Digest(curve[-1]["checkpoint"]))
        assert folder is not None
        assert open_model(folder).config.hidden_size == 48
    assert curve[20]["heldout_loss"] < curve[0]["heldout_loss"] - 1


def test_a_config_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    with open_bench(tmp_path, files_of(CONFIG)) as bench:
        table = bench.write(ROWS)
        with pytest.raises(BuildError, match="names no tokenizer"):
            bench.build("midtrain", {"texts": table})


def test_training_goes_on_from_another_train_node(tmp_path: Path) -> None:
    second = """
  - {name: again, kind: train, from: texts, base: midtrain, seq_len: 32, tokens: 640, batch_size: 2, threads: 1}
"""
    files = files_of(str(write_model(tmp_path / "base")))
    files["models/models.yml"] += second
    with open_bench(tmp_path, files) as bench:
        texts = bench.write(ROWS)
        first = bench.build("midtrain", {"texts": texts}).table
        curve = bench.rows(bench.build("again", {"texts": texts, "midtrain": first}).table)
        before = bench.rows(first)
    assert curve[0]["heldout_loss"] == pytest.approx(before[-1]["heldout_loss"], abs=1e-5)


def test_without_a_split_all_rows_train_where_that_is_asked_for(tmp_path: Path) -> None:
    rows = [{"text": row["text"]} for row in ROWS]
    with pytest.raises(BuildError, match="no column `split`") as caught:
        train_once(tmp_path, rows)
    assert caught.value.hint == "`split: null` trains on all rows"
    _, curve = train_once(tmp_path, rows, "split: null")
    assert {row["heldout_loss"] for row in curve} == {None}


def test_chats_train_on_what_the_assistant_says(tmp_path: Path) -> None:
    chats = [
        {"messages": json.dumps([{"role": "user", "content": "Say it."}, {"role": "assistant", "content": text}])}
        for text in SENTENCES
    ]
    _, curve = train_once(tmp_path, chats, "text: messages\nsplit: null")
    assert curve[20]["loss"] < curve[1]["loss"] - 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "split": "test"}], "holds 'test'"),
        ([{"text": None, "split": "train"}, {"text": "a", "split": "train"}], "NULL"),
        ([{"text": "a", "split": "heldout"}], "no document to train on"),
    ],
    ids=["split", "null", "nothing"],
)
def test_rows_that_cannot_be_trained_on_are_errors(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        train_once(tmp_path, rows, schema=pa.schema([("text", pa.string()), ("split", pa.string())]))


def test_blocks_longer_than_the_model_takes_are_an_error(tmp_path: Path) -> None:
    files = files_of(str(write_model(tmp_path / "base", max_position_embeddings=16)))
    with open_bench(tmp_path, files) as bench:
        table = bench.write(ROWS)
        with pytest.raises(BuildError, match="longer than the 16 tokens") as caught:
            bench.build("midtrain", {"texts": table})
    assert caught.value.where is not None
    assert caught.value.where.file == "models/models.yml"


def test_weights_that_are_not_here_are_an_error_that_says_where(tmp_path: Path) -> None:
    with open_bench(tmp_path, files_of("./nowhere/at/all")) as bench:
        table: Table = bench.write(ROWS)
        with pytest.raises(BqError) as caught:
            bench.build("midtrain", {"texts": table})
    assert caught.value.where is not None
    assert caught.value.hint
