from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from bqbuild.core.errors import BuildError
from bqbuild.core.ids import row_id
from bqbuild.core.records import CALLS, ID, PARENT, ROOTS, Table
from bqbuild.nodes.mix import MixKind
from bqbuild.nodes.strata import stratum_value
from bqbuild.quality.sampling import is_heldout
from tests.nodes.workbench import Workbench


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


def mixed(bench: Workbench, inputs: Mapping[str, Table], **declared: Any) -> list[dict[str, Any]]:
    """The rows of a mix of all inputs but those named `weights…`, in their order."""
    spec = {"name": "m", "kind": "mix", "from": [name for name in inputs if not name.startswith("weights")], **declared}
    return bench.rows(bench.build(MixKind(), spec, inputs).table)


def rows_of(count: int, **columns: Any) -> list[dict[str, Any]]:
    """Rows whose columns are constants, or functions of the row's number."""
    return [
        {name: value(number) if callable(value) else value for name, value in columns.items()}
        for number in range(count)
    ]


def word_tokenizer(folder: Path) -> str:
    """A model folder whose tokenizer makes one token a word."""
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text("{}")
    return str(folder)


def counts(rows: Sequence[Mapping[str, Any]], *names: str) -> dict[Any, int]:
    return dict(Counter(row[names[0]] if len(names) == 1 else tuple(row[name] for name in names) for row in rows))


def test_without_a_budget_every_row_is_there_once(bench: Workbench) -> None:
    rows = mixed(bench, {"a": bench.table(rows_of(20, n=lambda n: n))}, repeat=3)
    assert sorted(row["n"] for row in rows) == list(range(20))
    assert counts(rows, "split") == {"train": 20}
    assert bench.warnings == []


def test_a_copy_knows_its_row_and_keeps_its_calls_and_roots(bench: Workbench) -> None:
    table = bench.table([{"n": 1, ID: "parent", CALLS: ["c"], ROOTS: ["r1", "r2"]}])
    rows = mixed(bench, {"a": table}, rows=2, repeat=2)
    assert {row[ID] for row in rows} == {row_id("mix", "parent", 0), row_id("mix", "parent", 1)}
    assert all((row[PARENT], row[CALLS], row[ROOTS]) == ("parent", ["c"], ["r1", "r2"]) for row in rows)


def test_strata_share_a_budget_evenly_where_no_weights_are_given(bench: Workbench) -> None:
    table = bench.table(rows_of(1000, subject=lambda n: "maths" if n % 10 else "physics", level=lambda n: n % 2))
    rows = mixed(bench, {"a": table}, by=["subject"], rows=120)
    assert counts(rows, "subject") == {"maths": 60, "physics": 60}
    rows = mixed(bench, {"a": table}, by=["subject", "level"], rows=300)
    assert counts(rows, "subject", "level") == {("maths", 0): 100, ("maths", 1): 100, ("physics", 0): 100}


def test_declared_weights_divide_the_budget_and_the_first_that_fits_counts(bench: Workbench) -> None:
    table = bench.table(rows_of(3000, subject=lambda n: ["maths", "physics", None][n % 3], level=lambda n: n % 2))
    weights = [
        {"when": {"subject": "maths", "level": 1}, "weight": 6},
        {"when": {"subject": "maths"}, "weight": 0},
        {"when": {"subject": None}, "weight": 2},
    ]
    rows = mixed(bench, {"a": table}, by=["subject", "level"], rows=120, weights=weights)
    assert counts(rows, "subject", "level") == {
        ("maths", 1): 60,
        ("physics", 0): 10,
        ("physics", 1): 10,
        (None, 0): 20,
        (None, 1): 20,
    }


def test_weights_come_from_another_model_whatever_the_type_of_its_columns(bench: Workbench) -> None:
    table = bench.table(rows_of(600, level=lambda n: n % 3 + 1))
    weights = bench.table([{"level": "1", "need": 1.0}, {"level": "2", "need": 3.0}, {"level": "9", "need": 50.0}])
    rows = mixed(
        bench, {"a": table, "weights": weights}, by=["level"], rows=60, weights={"from": "weights", "column": "need"}
    )
    # level 3 has none of its own: the mean of 1, 3 and 50
    assert counts(rows, "level") == {1: 3, 2: 8, 3: 49}
    assert bench.warnings == ["`m`: `weights` has no weight for level=3: the mean, 18, was used"]


def test_what_a_stratum_lacks_is_repeated_and_then_given_to_the_others(bench: Workbench) -> None:
    table = bench.table(rows_of(110, kind=lambda n: "rare" if n < 10 else "common"))
    assert counts(mixed(bench, {"a": table}, by=["kind"], rows=80), "kind") == {"rare": 10, "common": 70}
    repeated = mixed(bench, {"a": table}, by=["kind"], rows=80, repeat=3)
    assert counts(repeated, "kind") == {"rare": 30, "common": 50}
    assert set(counts([row for row in repeated if row["kind"] == "rare"], PARENT).values()) == {3}
    assert len({row[ID] for row in repeated}) == 80


def test_a_budget_that_cannot_be_met_takes_all_and_says_so(bench: Workbench) -> None:
    rows = mixed(bench, {"a": bench.table(rows_of(5, n=1))}, rows=1000, repeat=2)
    assert len(rows) == 10
    assert bench.warnings == ["`m`: asked for 1,000 rows, but there are 10: all were taken"]


def test_a_larger_budget_keeps_the_rows_of_a_smaller_one(bench: Workbench) -> None:
    table = bench.table(rows_of(500, kind=lambda n: n % 3))
    small, large = (mixed(bench, {"a": table}, by=["kind"], rows=budget) for budget in (60, 200))
    assert {row[ID] for row in small} < {row[ID] for row in large}


def test_inputs_are_taken_in_proportion_to_their_weights(bench: Workbench) -> None:
    inputs = {
        name: bench.table([{"source": name, ID: f"{name}{number}"} for number in range(2000)]) for name in ("a", "b")
    }
    rows = mixed(bench, inputs, **{"from": [{"model": "a", "weight": 3}, "b"]}, rows=400)
    assert 270 < counts(rows, "source")["a"] < 330


def test_inputs_are_joined_by_name_and_what_one_lacks_is_null(bench: Workbench) -> None:
    inputs = {
        "a": bench.table([{"question": "q", "level": 1, ID: "1"}]),
        "b": bench.table([{"answer": "a", "question": "r", ID: "2"}]),
    }
    rows = mixed(bench, inputs, by=["level"])
    assert list(rows[0]) == ["question", "level", "answer", "split", ID, PARENT, CALLS, ROOTS]
    assert sorted((row["question"], row["level"], row["answer"]) for row in rows) == [("q", 1, None), ("r", None, "a")]


def test_a_row_that_comes_by_two_roads_is_there_twice_under_two_ids(bench: Workbench) -> None:
    inputs = {"a": bench.table([{"n": 1, ID: "x"}]), "b": bench.table([{"n": 2, ID: "x"}, {"n": 3, ID: "y"}])}
    rows = mixed(bench, inputs)
    assert sorted(row["n"] for row in rows) == [1, 2, 3]
    assert {row[ID] for row in rows} == {row_id("mix", "x", 0), row_id("mix", "x", 0, 1), row_id("mix", "y", 0)}


def test_the_text_is_rendered_and_may_use_what_only_one_input_has(bench: Workbench) -> None:
    inputs = {
        "a": bench.table([{"question": "Why?", ID: "1"}]),
        "b": bench.table([{"question": "How?", "answer": "So.", ID: "2"}]),
    }
    rows = mixed(bench, inputs, text="Q: {{ question }}{% if answer %} A: {{ answer }}{% endif %}")
    assert sorted(row["text"] for row in rows) == ["Q: How? A: So.", "Q: Why?"]


def test_a_null_in_the_text_names_the_row(bench: Workbench) -> None:
    table = bench.table([{"question": "q", "answer": None, ID: "r7"}], {"question": pa.string(), "answer": pa.string()})
    with pytest.raises(BuildError, match="the text of row r7: 'answer' is NULL") as raised:
        mixed(bench, {"a": table}, text="{{ answer }}")
    assert "default" in str(raised.value.hint)


def test_a_budget_of_tokens_is_counted_by_the_tokenizer_and_kept(bench: Workbench, tmp_path: Path) -> None:
    table = bench.table(rows_of(300, body=lambda n: " ".join(["w"] * (n % 7 + 1)), kind=lambda n: n % 2))
    rows = mixed(
        bench, {"a": table}, by=["kind"], tokens=400, text="t {{ body }}", tokenizer=word_tokenizer(tmp_path / "tok")
    )
    assert all(row["tokens"] == len(row["text"].split()) for row in rows)
    assert 390 < sum(row["tokens"] for row in rows) <= 400
    by_kind = {kind: sum(row["tokens"] for row in rows if row["kind"] == kind) for kind in (0, 1)}
    assert abs(by_kind[0] - by_kind[1]) <= 10


def test_heldout_goes_by_root_and_rows_whose_roots_disagree_are_left_out(bench: Workbench) -> None:
    roots = [f"root{number}" for number in range(400)]
    rows = [{"n": number, ROOTS: [roots[number], roots[number - number % 2]]} for number in range(400)]
    kept = mixed(bench, {"a": bench.table(rows)}, heldout=0.2)
    for row in kept:
        assert row["split"] == ("heldout" if is_heldout(row[ROOTS][0], 0.2) else "train")
        assert is_heldout(row[ROOTS][0], 0.2) == is_heldout(row[ROOTS][1], 0.2)
    assert {"heldout", "train"} == set(counts(kept, "split"))
    dropped = 400 - len(kept)
    assert dropped > 0
    assert bench.warnings == [f"`m`: {dropped} rows come from training and held-out sources at once, and were left out"]


def test_every_copy_of_a_root_is_on_one_side_and_held_out_rows_are_never_repeated(bench: Workbench) -> None:
    rows = [{"n": number, ROOTS: [f"root{number // 4}"]} for number in range(200)]
    kept = mixed(bench, {"a": bench.table(rows)}, heldout=0.3, rows=450, repeat=3)
    sides: dict[str, set[str]] = {}
    for row in kept:
        sides.setdefault(row[ROOTS][0], set()).add(row["split"])
    assert all(len(found) == 1 for found in sides.values())
    copies = counts([row for row in kept if row["split"] == "heldout"], PARENT)
    assert set(copies.values()) == {1}
    assert len(kept) == min(450, len(copies) + 3 * (200 - len(copies)))


def test_the_order_and_the_files_of_the_inputs_change_nothing(bench: Workbench) -> None:
    rows: list[dict[str, Any]] = [
        {"n": number, "kind": f"k{number % 5}", ID: f"id{number}", ROOTS: [f"r{number // 3}"]} for number in range(700)
    ]
    weights = [{"kind": f"k{number}", "weight": number + 0.5} for number in range(5)]
    seen, orders = set(), set()
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        random.Random(seed).shuffle(weights)
        inputs = {
            "a": bench.table([row for row in rows if row["n"] < 400], batch=11 + 100 * seed),
            "b": bench.table([row for row in rows if row["n"] >= 300], batch=50),
            "weights": bench.table(weights),
        }
        made = mixed(
            bench,
            inputs,
            **{"from": [{"model": "a", "weight": 2}, "b"]},
            by=["kind"],
            rows=300,
            repeat=2,
            heldout=0.1,
            weights={"from": "weights"},
        )
        seen.add(tuple(sorted((row[ID], row["n"], row["split"]) for row in made)))
        orders.add(tuple(row[ID] for row in made))
    assert len(seen) == 1
    assert len(orders) == 1


def test_another_seed_takes_other_rows_and_holds_out_the_same(bench: Workbench) -> None:
    table = bench.table(rows_of(400, n=lambda n: n))
    first, second = (mixed(bench, {"a": table}, rows=200, heldout=0.2, seed=seed) for seed in (0, 1))
    assert {row["n"] for row in first} != {row["n"] for row in second}
    sides = {row["n"]: row["split"] for row in first}
    assert all(sides.get(row["n"], row["split"]) == row["split"] for row in second)


def test_a_mix_of_no_rows_makes_no_rows(bench: Workbench) -> None:
    table = bench.table([], {"n": pa.int64()})
    assert mixed(bench, {"a": table}, by=["n"], rows=10) == []


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"rows": 1, "tokens": 1}, "a budget of rows and one of tokens"),
        ({"by": ["subjct"]}, "`by` names `subjct`, which no input has"),
        ({"text": "{{ quesion }}"}, "the text reads `quesion`, which no input has"),
        ({"tokens": 5}, "a budget of tokens and no text to count"),
        ({"by": ["subject"], "weights": [{"when": {"level": 1}, "weight": 1}]}, "a weight is given `when` `level`"),
        ({"by": ["subject"], "rows": 1, "weights": [{"when": {}, "weight": 0}]}, "has the weight 0"),
        ({"by": ["subject"], "weights": {"from": "weights"}}, "gives subject=maths the weight NULL"),
        ({"by": ["subject"], "weights": {"from": "weights2"}}, "gives subject=maths two weights"),
        ({"by": ["subject"], "weights": {"from": "weights", "column": "wait"}}, "need its column `wait`"),
    ],
    ids=["two budgets", "by", "text", "no text", "when", "all zero", "null weight", "two weights", "weight column"],
)
def test_what_does_not_fit_is_an_error_that_names_the_file(
    bench: Workbench, declared: dict[str, Any], message: str
) -> None:
    inputs = {
        "a": bench.table([{"question": "q", "subject": "maths", "level": 1}]),
        "weights": bench.table(
            [{"subject": "maths", "weight": None}], {"subject": pa.string(), "weight": pa.float64()}
        ),
        "weights2": bench.table([{"subject": "maths", "weight": 1.0}, {"subject": "maths", "weight": 2.0}]),
    }
    with pytest.raises(BuildError, match=message) as raised:
        mixed(bench, inputs, **declared)
    assert "models/m.yml" in str(raised.value.where)


def test_inputs_that_disagree_about_a_type_are_an_error(bench: Workbench) -> None:
    inputs = {"a": bench.table([{"level": 1}]), "b": bench.table([{"level": "1"}])}
    with pytest.raises(BuildError, match="`level` is bigint in `a`, and `level` is varchar in `b`"):
        mixed(bench, inputs)


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (3.0, "3"), ("3", "3"), (2.5, "2.5"), (True, "true"), (None, None), ([1, "a"], '[1, "a"]')],
)
def test_a_stratum_is_named_by_its_values_whatever_their_type(value: object, text: str | None) -> None:
    assert stratum_value(value) == text
