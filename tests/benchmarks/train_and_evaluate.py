"""Measures training and evaluation of the embedded model on this machine.

    python tests/benchmarks/train_and_evaluate.py questions.jsonl --steps 5 --questions 60 --threads 2

`questions.jsonl` holds `question`, `choices` and `answer` (an index); training reads this repository's docs. Wall time
counts, so run it on a quiet machine; on a busy one, CPU seconds with `--threads 1` still say something.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from pathlib import Path

import click

from bqbuild.llm.weights import resolve_weights
from bqbuild.train.documents import text_documents
from bqbuild.train.evaluate import Benchmark, Question, score
from bqbuild.train.language_model import open_model, open_tokenizer, torch_threads
from bqbuild.train.loop import Point, TrainConfig, Work, train
from bqbuild.train.packing import write_corpus
from bqbuild.train.scoring import TreeLM

DOCS = Path(__file__).parents[2] / "docs"


@click.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--steps", default=5)
@click.option("--questions", default=60)
@click.option("--threads", default=2)
def main(path: Path, steps: int, questions: int, threads: int) -> None:
    """Print seconds a step, tokens a second, seconds a question, and losses."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    folder = resolve_weights("embedded")
    with tempfile.TemporaryDirectory() as scratch, torch_threads(threads):
        measure_training(folder, Path(scratch), steps)
        measure_evaluation(rows, folder, questions)


def measure_training(folder: Path, scratch: Path, steps: int) -> None:
    """Steps of one block of 512 tokens."""
    tokenizer = open_tokenizer(folder)
    texts = [part for file in sorted(DOCS.rglob("*.md")) for part in file.read_text("utf-8").split("\n\n")]
    training = write_corpus(text_documents(tokenizer, texts[20:]), scratch, "train")
    heldout = write_corpus(text_documents(tokenizer, texts[:20]), scratch, "heldout")
    config = TrainConfig(seq_len=512, tokens=steps * 512, batch_size=1, learning_rate=1e-4, eval_tokens=1024)
    times, cpu = [time.perf_counter()], [time.process_time()]

    def report(point: Point, total: int) -> None:
        times.append(time.perf_counter())
        cpu.append(time.process_time())
        spent = f"{times[-1] - times[-2]:.2f} s ({cpu[-1] - cpu[-2]:.2f} CPU s)"
        click.echo(f"step {point.step}: {spent}, loss {point.loss}, held out {point.heldout_loss}")

    train(open_model(folder), training, heldout, config, Work(scratch / "run", "benchmark", report))
    fastest = min(after - before for before, after in itertools.pairwise(times[1:]))
    click.echo(f"training: {fastest:.2f} s a step, {512 / fastest:.0f} tokens/s (the fastest step)")


def measure_evaluation(rows: list[dict[str, object]], folder: Path, count: int) -> None:
    """Questions spread over the file."""
    chosen = rows[:: max(len(rows) // count, 1)][:count]
    asked = tuple(
        Question(str(number), f"Question: {row['question']}\nAnswer:", tuple(map(str, row["choices"])), row["answer"])
        for number, row in enumerate(chosen)
    )
    lm = TreeLM(open_model(folder), open_tokenizer(folder))
    start, cpu = time.perf_counter(), time.process_time()
    scored = score(lm, [Benchmark("benchmark", asked)])["benchmark"]
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    accuracy = sum(result.correct for result in scored) / len(scored)
    each = seconds / len(scored)
    click.echo(f"evaluation: {seconds:.1f} s ({cpu:.1f} CPU s), {len(scored)} questions, {each:.2f} s a question")
    click.echo(f"accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
