"""The project that ships: it reads without a mistake for every target, and its data nodes do what its guide says."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from bqbuild.config.project import Project, load_project
from bqbuild.core.events import NodeResult
from bqbuild.core.records import NodeName
from bqbuild.run.execute import run
from bqbuild.run.options import RunOptions
from bqbuild.run.session import open_session
from bqbuild.run.warehouse import connect
from tests.llm_server import LlmServer

ROOT = Path(__file__).parents[2]
TARGETS = ("dev", "corpora", "paper")
BENCHMARKS = {"mmlu_cot", "mmlu_stem", "mmlu_stem_dev", "agieval_gaokao_stem", "arc_challenge", "gsm8k", "math_agieval"}
MODELS_OF_THE_PAPER = (
    "seeds seeds_annotated probe deficiency stem_multigrade high_difficulty qa_refined qa_filtered boostqa midtrain"
    " benchmarks report_diversity report_coverage report_refinement"
).split()


@pytest.fixture(params=TARGETS)
def project(request: pytest.FixtureRequest) -> Project:
    return load_project(ROOT, target=request.param, environ={})


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A copy that a test may run and edit."""
    for folder in ("project", "models", "prompts"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def test_every_target_reads_without_mistake_or_warning(project: Project) -> None:
    assert set(MODELS_OF_THE_PAPER) <= set(project.nodes)
    assert not project.warnings


def test_every_source_names_its_licence_and_every_model_says_what_it_is_for(project: Project) -> None:
    for node in project.nodes.values():
        if node.kind == "source":
            assert node.spec.license, node.name
        if "corpora" not in node.path:
            assert node.spec.description, node.name


def test_no_training_row_comes_from_a_benchmark(project: Project) -> None:
    """Follows the rows only: what a rule compares with and what weights are read from makes no row."""

    def row_parents(name: str) -> set[str]:
        node = project.nodes[NodeName(name)]
        if node.kind in ("source", "sql"):
            return {str(ref.node) for ref in node.refs}
        given = node.spec.from_
        return {str(getattr(each, "model", each)) for each in (given if isinstance(given, list) else [given])}

    seen: set[str] = set()
    waiting = {"boostqa"}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= row_parents(name) - seen
    assert "seeds" in seen
    assert not seen & BENCHMARKS


def test_the_taxonomy_of_the_benchmarks_is_that_of_the_seeds(reference: Path) -> None:
    execute(reference, "paper", "benchmark_questions")
    taxonomy = load_project(reference, target="paper", environ={}).variables
    labels = {*taxonomy["stem_disciplines"], *taxonomy["nonstem_disciplines"]}
    found = rows(reference, "select distinct discipline, difficulty from benchmark_questions")
    assert {row["discipline"] for row in found} <= labels
    assert {row["difficulty"] for row in found} <= {1, 2, 3, 4, 5}
    assert rows(reference, "select count(*) as n from benchmark_questions") == [{"n": 280}]


def test_the_seed_filter_catches_what_was_planted_and_little_else(reference: Path) -> None:
    pytest.importorskip("lingua", reason="the language rule needs lingua")
    execute(reference, "paper", "seeds_clean")
    dropped = rows(reference, "select _bq_rule as rule, seed_id from seeds_clean__rejects")
    by_rule: dict[str, set[str]] = {}
    for row in dropped:
        by_rule.setdefault(row["rule"], set()).add(row["seed_id"])
    assert by_rule == {
        "long_enough": {"p024", "qa-035"},
        "no_noise": {"p009"},
        "no_advertising": {"p004", "p019", "p031"},
        "no_chatter": {"p006", "p012", "p034", "p036"},
        "english_or_chinese": {"p015", "p016"},
        "no_near_duplicate": {"p002", "p008", "p030"},
        "not_in_a_benchmark": {"p038"},
    }


def test_the_pairs_of_the_paper_target_are_made_and_filtered_on_a_chat_server(reference: Path) -> None:
    """Reads, asks, labels, checks, refines, judges with the paper's configuration; only the base URL is another."""
    pytest.importorskip("lingua", reason="the language rule needs lingua")
    with LlmServer(answer) as server:
        profiles = reference / "project/profiles.yml"
        profiles.write_text(profiles.read_text().replace("https://api.deepseek.com/v1", server.url))
        results = execute(reference, "paper", "qa_filtered", variables={"seed_rows": 12, "challenges": ["multi_step"]})
        sent = len(server.requests)
        again = execute(reference, "paper", "qa_filtered", variables={"seed_rows": 12, "challenges": ["multi_step"]})
        assert len(server.requests) == sent
    assert {result.status for result in results} == {"success"}
    assert {result.status for result in again} == {"cached"}
    stem = rows(reference, "select count(*) as n from seeds_stem")[0]["n"]
    assert stem > 0
    assert rows(reference, "select count(*) as n from stem_multigrade") == [{"n": stem * 5 * 3}]
    assert not rows(
        reference, "select * from qa_checked where method = 'high_difficulty' and difficulty < seed_difficulty"
    )
    assert not rows(
        reference, "select * from qa_refined where answer not like 'First, %' and answer not like '首先，%'"
    )
    assert rows(reference, "select count(*) as n from qa_filtered")[0]["n"] > 0


def execute(root: Path, target: str, *names: str, variables: dict[str, Any] | None = None) -> list[NodeResult]:
    """Builds the names and all that they need."""
    with open_session(root, target=target, variables=variables) as session:
        wanted = {NodeName(name) for name in names}
        chosen = [name for name in session.dag.order if name in wanted or wanted & session.dag.descendants(name)]
        results = run(session, chosen, RunOptions(), [])
    assert all(result.status in ("success", "cached") for result in results), results
    return results


def rows(root: Path, query: str) -> list[dict[str, Any]]:
    """What a query on the target `paper` gives."""
    with open_session(root, target="paper", variables=None) as session:
        connection = connect(session)
        found: list[dict[str, Any]] = connection.sql(query).to_arrow_table().to_pylist()
    return found


def answer(body: dict[str, Any]) -> str:
    """A patient model: labels by hash, pairs that fit the language asked for, answers that begin with "First,"."""
    system, last = body["messages"][0]["content"], body["messages"][-1]["content"]
    number = int(hashlib.md5(last.encode()).hexdigest()[:8], 16)
    if "academic discipline" in system:
        return ("physics", "biology", "history")[number % 3]
    if "how difficult" in system:
        return str(number % 5 + 1)
    if "You judge" in system:
        return str(3 + number % 3)
    if "You correct" in system:
        draft = str(last).split("Draft: ")[-1]
        return ("首先，" if re.search("[\u4e00-\u9fff]", draft) else "First, ") + draft
    return json.dumps([pair(number + item, "in Chinese" in last) for item in range(3)], ensure_ascii=False)


def pair(number: int, is_chinese: bool) -> dict[str, str]:
    """A question and an answer that few others resemble."""
    words = [
        f"{word}{number % size}" for size, word in ((7919, "alpha"), (6007, "beta"), (4001, "gamma"), (911, "delta"))
    ]
    if is_chinese:
        return {
            "question": f"第{number}号：{' '.join(words)}是多少？",
            "answer": f"答案是{number % 9973}，理由是{words[0]}。",
        }
    return {
        "question": f"What do {' and '.join(words)} make?",
        "answer": f"They make {number % 9973} since {' '.join(words)}.",
    }


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
