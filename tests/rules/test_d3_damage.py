"""D3: a damaged file of the store is found by its checksum, named, and rebuilt from the call log; never trusted.

Damaged calls and checkpoints are named with what replacing them costs, and nothing is paid without `--repay`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bqbuild.core.events import NodeResult
from bqbuild.core.records import NodeName
from bqbuild.run.options import RunOptions
from bqbuild.store.base import Damage
from tests.llm_server import LlmServer
from tests.space import Space, statuses

AGAIN = RunOptions(full_refresh=True)
PAID = RunOptions(full_refresh=True, repay=True)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def empty(path: Path) -> None:
    path.write_bytes(b"")


HARM: dict[str, Callable[[Path], None]] = {"flipped": flip, "cut": cut, "empty": empty, "missing": Path.unlink}


def v1(space: Space) -> Path:
    return space.root / ".bqbuild" / "v1"


def table_folder(space: Space, name: str) -> Path:
    digest = space.digests()[name]
    return v1(space) / "tables" / digest[:2] / digest


def fsck(space: Space, *, repay: bool = False) -> list[Damage]:
    with space.session() as session:
        return list(session.store.health.check(repay=repay))


def segment(space: Space) -> Path:
    (found,) = (v1(space) / "calls" / "segments").glob("*.zst")
    return found


def error_of(results: dict[str, NodeResult], name: str) -> str:
    assert results[name].status == "error"
    return results[name].reason


def test_d3_a_sound_store_is_called_sound(built: Space) -> None:
    assert fsck(built) == []


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("file", ["part-0000.parquet", "table.json"])
def test_d3_a_damaged_table_is_named_and_built_again_from_recorded_calls(built: Space, file: str, harm: str) -> None:
    before = built.digests()
    path = table_folder(built, "answers") / file
    HARM[harm](path)
    (damage,) = fsck(built)
    assert (damage.what, damage.path, damage.models) == ("table", str(path), ("answers",))
    assert "recorded calls" in damage.action
    assert not path.exists()
    assert list((v1(built) / "damaged").iterdir())
    assert statuses(built.run()) == {
        "clean_notes": "cached",
        "questions": "cached",
        "answers": "success",
        "labelled": "cached",
        "kept": "cached",
    }
    assert built.sent == 0
    assert built.digests() == before
    assert fsck(built) == []


def test_d3_a_table_with_the_sound_files_of_another_is_not_trusted(built: Space) -> None:
    before = built.digests()
    answers, questions = table_folder(built, "answers"), table_folder(built, "questions")
    for path in answers.iterdir():
        if path.is_file():
            path.unlink()
    for path in questions.iterdir():
        if path.is_file():
            shutil.copy(path, answers)
    (damage,) = fsck(built)
    assert damage.path.startswith(str(answers))
    assert damage.problem == "it belongs to another folder"
    assert built.run()["answers"].status == "success"
    assert built.sent == 0
    assert built.digests() == before


def test_d3_a_run_alone_does_not_trust_a_table_of_another(built: Space) -> None:
    before = built.digests()
    answers, questions = table_folder(built, "answers"), table_folder(built, "questions")
    for name in ("table.json", "part-0000.parquet"):
        shutil.copy(questions / name, answers / name)
    built.edit("prompts/label.md", "How difficult", "How hard")
    results = built.run()
    assert results["answers"].status == "success"
    assert built.sent == 8
    assert built.digests()["answers"] == before["answers"]
    assert [row["n"] for row in built.rows("select count(distinct answer) as n from answers")] == [8]


@pytest.mark.parametrize("name", ["clean_notes", "questions", "answers"])
def test_d3_a_damaged_table_that_a_run_meets_is_healed_in_that_run(
    built: Space, tmp_path: Path, llm_server: LlmServer, name: str
) -> None:
    flip(table_folder(built, name) / "part-0000.parquet")
    reader = {"clean_notes": "ask", "questions": "improve", "answers": "label"}[name]
    text = {"ask": "Write one", "improve": "Improve", "label": "How difficult"}[reader]
    built.edit(f"prompts/{reader}.md", text, f"Please: {text}")
    results = built.run()
    assert results[name].status == "success"
    assert {"error", "skipped", "partial"}.isdisjoint(statuses(results).values())
    assert built.sent == {"ask": 24, "improve": 8, "label": 8}[reader]  # labels read questions only
    clean = Space.copy("capitals", tmp_path / "clean", llm_server)
    clean.edit(f"prompts/{reader}.md", text, f"Please: {text}")
    clean.run()
    assert built.digests() == clean.digests()


def test_d3_two_damaged_tables_one_above_the_other_are_healed_in_one_run(built: Space) -> None:
    before = built.digests()
    for name in ("questions", "clean_notes"):
        flip(table_folder(built, name) / "part-0000.parquet")
    built.edit("prompts/improve.md", "Improve", "Please improve")
    results = built.run()
    assert {name: results[name].status for name in ("clean_notes", "questions")} == {
        "clean_notes": "success",
        "questions": "success",
    }
    assert built.sent == 8
    after = built.digests()
    assert {name: after[name] for name in ("clean_notes", "questions")} == {
        name: before[name] for name in ("clean_notes", "questions")
    }


@pytest.mark.parametrize("harm", HARM)
def test_d3_a_damaged_trace_costs_nothing(built: Space, harm: str) -> None:
    before = built.digests()
    for path in (v1(built) / "traces").rglob("*.json"):
        HARM[harm](path)
    found = fsck(built)
    assert {damage.what for damage in found} == {"trace"}
    built.run()
    assert built.sent == 0
    assert built.digests() == before
    assert fsck(built) == []


def test_d3_traces_in_each_others_place_are_not_trusted(built: Space) -> None:
    before = built.digests()
    first, second = sorted((v1(built) / "traces").rglob("*.json"))[:2]
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    assert {damage.path for damage in fsck(built)} == {str(first), str(second)}
    built.run()
    assert built.sent == 0
    assert built.digests() == before


def test_d3_a_damaged_environment_goes_back_to_its_last_run(built: Space) -> None:
    before = built.digests()
    path = v1(built) / "environments" / "capitals" / "dev.json"
    flip(path)
    (damage,) = fsck(built)
    assert (damage.what, damage.path) == ("environment", str(path))
    assert built.digests() == before
    assert set(statuses(built.run()).values()) == {"cached"}
    assert fsck(built) == []


@pytest.mark.parametrize("harm", HARM)
def test_d3_damaged_calls_that_nobody_needs_stop_nobody(built: Space, harm: str) -> None:
    HARM[harm](segment(built))
    assert set(statuses(built.run()).values()) == {"cached"}
    assert built.sent == 0


@pytest.mark.parametrize("harm", HARM)
def test_d3_damaged_calls_are_named_with_their_price_and_paid_for_on_request_only(built: Space, harm: str) -> None:
    before, path = built.digests(), segment(built)
    paid = paid_for(built)
    HARM[harm](path)
    (damage,) = fsck(built)
    assert (damage.what, damage.path, damage.calls) == ("calls", str(path), 24)
    assert damage.cost == pytest.approx(paid)
    said = error_of(built.run(options=AGAIN), "questions")
    assert str(path) in said
    assert "8 recorded calls worth $" in said
    assert "--repay" in said
    assert built.sent == 0
    results = built.run(options=PAID)
    assert {"error", "skipped", "partial"}.isdisjoint(statuses(results).values())
    assert built.sent == 24
    assert built.digests() == before
    assert fsck(built) == []
    assert {"error", "skipped"}.isdisjoint(statuses(built.run(options=AGAIN)).values())
    assert built.sent == 0


def paid_for(space: Space) -> float:
    """What all calls of the space cost, by the traces of the runs that bought them."""
    with space.session() as session:
        traces = session.store.traces.find([pointer.trace for pointer in session.pointers().values()])
        return sum(trace.stats["cost"] for trace in traces.values())


def test_d3_calls_whose_index_is_gone_with_them_are_still_missed(built: Space) -> None:
    path = segment(built)
    path.unlink()
    path.with_name(path.name.replace(".jsonl.zst", ".parquet")).unlink()
    (damage,) = fsck(built)
    assert (damage.what, damage.path, damage.calls) == ("calls", str(path), 24)
    assert "may have been recorded there" in error_of(built.run(options=AGAIN), "questions")
    assert built.sent == 0
    built.run(options=PAID)
    assert built.sent == 24
    assert fsck(built) == []


def test_d3_a_damaged_index_of_calls_is_made_again_for_nothing(built: Space) -> None:
    index = segment(built).with_name(segment(built).name.replace(".jsonl.zst", ".parquet"))
    flip(index)
    built.run(options=AGAIN)
    assert built.sent == 0
    (damage,) = fsck(built)
    assert (damage.what, damage.path, damage.cost) == ("index", str(index), None)
    assert fsck(built) == []
    built.run(options=AGAIN)
    assert built.sent == 0


def test_d3_segments_in_each_others_place_lose_nothing(built: Space) -> None:
    first = segment(built)
    built.edit("prompts/label.md", "How difficult", "How hard")
    built.run()
    assert built.sent == 8
    (second,) = set((v1(built) / "calls" / "segments").glob("*.zst")) - {first}
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    built.run(options=AGAIN)
    assert built.sent == 0
    assert {damage.path for damage in fsck(built)} == {str(first), str(second)}
    assert fsck(built) == []
    built.run(options=AGAIN)
    assert built.sent == 0


def test_d3_a_segment_that_lost_its_last_bytes_and_no_call_is_put_right(built: Space) -> None:
    path = segment(built)
    path.write_bytes(path.read_bytes()[:-7])
    (damage,) = fsck(built)
    assert (damage.path, damage.calls, damage.cost) == (str(path), 0, 0.0)
    assert fsck(built) == []
    built.run(options=AGAIN)
    assert built.sent == 0


def test_d3_a_segment_with_the_calls_of_another_is_missed(built: Space) -> None:
    first = segment(built)
    built.edit("prompts/label.md", "How difficult", "How hard")
    built.run()
    (second,) = set((v1(built) / "calls" / "segments").glob("*.zst")) - {first}
    shutil.copy(first, second)
    said = error_of(built.run(options=AGAIN), "labelled")
    assert str(second) in said
    assert "8 recorded calls worth $" in said
    assert built.sent == 0
    built.run(options=PAID)
    assert built.sent == 8


def test_d3_a_broken_line_of_a_journal_is_named_and_only_its_call_is_bought(built: Space) -> None:
    segments = v1(built) / "calls" / "segments"
    from bqbuild.store.segments import Segment

    opened = Segment(segment(built))
    lines = list(opened.sound_lines())
    opened.close()
    shutil.rmtree(segments)
    (v1(built) / "calls" / "catalog.json").unlink()
    path = v1(built) / "calls" / "journal-0123456789abcdef0123456789abcdef.jsonl"
    lines[5] = lines[5].replace(b'"text"', b'"txet"')
    path.write_bytes(b"".join(lines))
    (damage,) = fsck(built)
    assert (damage.what, damage.path, damage.problem, damage.calls) == ("calls", str(path), "line 6 is broken", 1)
    refused = [result.reason for result in built.run(options=AGAIN).values() if result.status == "error"]
    assert len(refused) == 1
    assert f"line 6 of {path}" in refused[0]
    assert built.sent == 0
    built.run(options=PAID)
    assert built.sent == 1
    assert fsck(built) == []


def test_d3_what_is_not_damaged_is_still_done_and_kept(built: Space) -> None:
    models = built.read("models/models.yml")
    built.write("prompts/other.md", "---\ndescription: more\n---\nuser:\nSay something on {{ topic }}. {{ text }}\n")
    other = (
        "  - {name: others, kind: synthesize, from: clean_notes, prompt: other, llm: writer, "
        "output: {format: text, columns: {said: string}}}\n"
    )
    built.write("models/models.yml", models + other)
    assert built.run("others")["others"].status == "success"
    shutil.rmtree(table_folder(built, "answers"))
    for path in (v1(built) / "calls" / "segments").glob("*.zst"):
        if path.stat().st_size == max(each.stat().st_size for each in path.parent.glob("*.zst")):
            flip(path)
    built.edit("prompts/other.md", "something", "a word")
    results = built.run()
    assert results["answers"].status == "error"
    assert "recorded calls worth" in results["answers"].reason


def test_d3_fsck_with_repay_gives_up_what_is_lost_and_the_next_run_buys_what_it_needs(built: Space) -> None:
    flip(segment(built))
    (damage,) = fsck(built, repay=True)
    assert damage.action.startswith("set aside")
    assert fsck(built) == []
    assert set(statuses(built.run()).values()) == {"cached"}
    assert built.sent == 0
    built.run("clean_notes", "questions", options=AGAIN)
    assert built.sent == 8


TRAIN = """
  - name: trained
    kind: train
    from: lines
    base: BASE
    seq_len: 16
    tokens: 64
    batch_size: 2
    threads: 1
"""


@pytest.fixture
def trained(built: Space, tmp_path: Path) -> Space:
    """The project with a model of some thousand weights that was trained for a moment."""
    tiny = pytest.importorskip("tests.train.tiny")
    built.write("models/lines.sql", "select id, text, 'train' as split from {{ source('notes') }}")
    node = TRAIN.replace("BASE", json.dumps(str(tiny.write_model(tmp_path / "base"))))
    built.write("models/models.yml", built.read("models/models.yml") + node)
    assert built.run()["trained"].status == "success"
    return built


def checkpoint(space: Space) -> Path:
    (folder,) = (path for path in (v1(space) / "folders").glob("*/*") if path.is_dir())
    return folder


@pytest.mark.parametrize("harm", ["flipped", "missing"])
def test_d3_a_damaged_checkpoint_is_not_trained_again_unasked(trained: Space, harm: str) -> None:
    before = trained.digests()
    path = checkpoint(trained) / "files" / "model.safetensors"
    HARM[harm](path)
    found = fsck(trained)
    assert (found[0].what, found[0].path, found[0].models) == ("checkpoint", str(path), ("trained",))
    assert found[0].seconds is not None
    assert found[0].seconds > 0
    said = error_of(trained.run(), "trained")
    assert "would have to be trained again, and it took" in said
    assert "--repay" in said
    assert not list((v1(trained) / "folders").glob("*/*"))
    results = trained.run(options=RunOptions(repay=True))
    assert results["trained"].status == "success"
    assert checkpoint(trained).is_dir()
    assert before["clean_notes"] == trained.digests()["clean_notes"]
    assert fsck(trained) == []
    assert statuses(trained.run())["trained"] == "cached"


def test_d3_a_run_that_meets_a_damaged_checkpoint_names_its_file(trained: Space) -> None:
    path = checkpoint(trained) / "files" / "model.safetensors"
    flip(path)
    said = error_of(trained.run(), "trained")
    assert f"{path} is damaged" in said
    assert "would have to be trained again" in said


def test_d3_a_lost_trace_does_not_cost_a_training(trained: Space) -> None:
    with trained.session() as session:
        key = session.pointers()[NodeName("trained")].trace
    path = v1(trained) / "traces" / key[:2] / f"{key}.json"
    flip(path)
    assert statuses(trained.run())["trained"] == "cached"
    assert fsck(trained) == []
