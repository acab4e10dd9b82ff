"""Mistakes in declarations, in the user's words."""

from __future__ import annotations

from textwrap import dedent

import pytest

from bqbuild.config.mistakes import Mistakes
from bqbuild.config.specs import SPECS, FilterSpec, Spec, SynthesizeSpec
from bqbuild.config.validate import keys_of, validate
from bqbuild.config.yamlfile import parse_yaml


def complaints(spec_class: type[Spec], text: str) -> list[str]:
    document = parse_yaml(dedent(text), "m.yml")
    mistakes = Mistakes()
    validate(spec_class, document.value, document, mistakes)
    return [str(error).replace("\n  hint: ", " | ") for error in mistakes.errors]


SYNTHESIZE = "name: a\nkind: synthesize\nfrom: b\nprompt: p\nllm: w\noutput: {columns: {x: string}}\n"


def test_an_unknown_key_offers_the_nearest_one() -> None:
    assert complaints(SynthesizeSpec, SYNTHESIZE + "promt: p\n") == [
        "m.yml:7:1: unknown key 'promt' (did you mean 'prompt'?)"
    ]


def test_an_unknown_key_inside_offers_the_keys_of_its_place() -> None:
    text = "name: a\nkind: filter\nfrom: b\nrules:\n  - name: r\n    dedup: {columns: [x], metod: exact}\n"
    assert complaints(FilterSpec, text) == ["m.yml:6:27: unknown key 'metod' (did you mean 'method'?)"]


def test_an_unknown_key_with_nothing_near_lists_the_keys() -> None:
    text = SYNTHESIZE + "budget: {zzz: 1}\n"
    assert complaints(SynthesizeSpec, text) == ["m.yml:7:10: unknown key 'zzz' | known keys: calls, cost"]


def test_all_mistakes_of_a_declaration_come_together() -> None:
    text = "name: 1a\nkind: synthesize\nsamples: none\nmax_error_rate: 2\non_error: dorp\n"
    text += "output: {format: jso, columns: {}}\n"
    found = complaints(SynthesizeSpec, text)
    assert len(found) == 9
    assert "m.yml:3:10: `samples` must be a whole number, not 'none'" in found
    assert "m.yml:4:17: `max_error_rate` must be at most 1.0, not '2'" in found
    assert "m.yml:5:11: `on_error` must be drop, null or fail, not 'dorp' (did you mean 'drop'?)" in found
    assert any(line.startswith("m.yml:6:18: `output.format` must be") and "'json'?" in line for line in found)
    assert "m.yml:1:1: missing key 'prompt'" in found


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("enabled: 7\n", "m.yml:7:10: `enabled` must be true or false, not '7'"),
        ("params: [1]\n", "m.yml:7:9: `params` must be a mapping, not a list"),
        ("where: {a: 1}\n", "m.yml:7:8: `where` must be text, not a mapping"),
        ("tags: 7\n", "m.yml:7:7: `tags` must be a list, not '7'"),
        ("samples: 0\n", "m.yml:7:10: `samples` must be at least 1, not '0'"),
        ("samples: 1.5\n", "m.yml:7:10: `samples` must be a whole number, not '1.5'"),
        ("matrix: {grade: 1}\n", "m.yml:7:17: `matrix.grade` must be a list, not '1'"),
        ("description: [a]\n", "m.yml:7:14: `description` must be text, not a list"),
    ],
)
def test_wrong_types_say_what_would_be_right(more: str, expected: str) -> None:
    assert complaints(SynthesizeSpec, SYNTHESIZE + more) == [expected]


def test_a_rule_with_two_ways_is_told_at_the_rule() -> None:
    text = "name: a\nkind: filter\nfrom: b\nrules:\n  - name: r\n    sql: x\n  - name: s\n"
    assert complaints(FilterSpec, text) == [
        "m.yml:7:5: `rules.1`: a rule takes exactly one of sql, judge, dedup, decontaminate, language, quality"
    ]


def test_a_choice_without_labels_says_so() -> None:
    text = SYNTHESIZE.replace("{columns: {x: string}}", "{format: choice, columns: {x: string}}")
    assert complaints(SynthesizeSpec, text) == [
        "m.yml:6:1: `output`: format choice needs `values` or `scale` for its column"
    ]


def test_alternatives_are_told_in_one_line() -> None:
    text = "name: a\nkind: mix\nfrom: b\nweights: [{when: {x: 1}, weight: -1}]\n"
    assert complaints(SPECS["mix"], text) == ["m.yml:4:34: `weights.0.weight` must be at least 0.0, not '-1'"]
    assert complaints(SPECS["train"], "name: a\nkind: train\nfrom: b\ntokens: 1\nbase: [x]\n") == [
        "m.yml:5:7: `base` must be text or a mapping, not a list"
    ]


def test_columns_written_as_a_mapping_keep_their_places() -> None:
    text = SYNTHESIZE + "columns:\n  a: int\n  b: {typ: int}\n"
    assert complaints(SynthesizeSpec, text) == ["m.yml:9:7: unknown key 'typ' (did you mean 'type'?)"]


def test_what_is_no_mapping_is_told_at_its_place() -> None:
    assert complaints(FilterSpec, "- a\n") == ["m.yml:1:1: the file must be a mapping, not a list"]
    assert complaints(FilterSpec, "") == ["m.yml: the file is empty"]


def test_labels_keep_the_text_that_they_were_written_as() -> None:
    text = SYNTHESIZE.replace("{x: string}", "{x: {values: [1.10, 007, 5, no, true]}}")
    document = parse_yaml(text, "m.yml")
    spec = validate(SynthesizeSpec, document.value, document, Mistakes())
    assert spec is not None
    assert spec.output.columns["x"].labels == ("1.10", "007", "5", "no", "true")


def test_any_value_holds_plain_numbers() -> None:
    text = SYNTHESIZE + "params: {temperature: 0.70, stop: [1e3]}\nmatrix: {x: [007]}\n"
    document = parse_yaml(text, "m.yml")
    spec = validate(SynthesizeSpec, document.value, document, Mistakes())
    assert spec is not None
    assert [type(spec.params["temperature"]), type(spec.params["stop"][0]), type(spec.matrix["x"][0])] == [
        float,
        float,
        int,
    ]


def test_keys_are_those_that_users_write() -> None:
    assert "from" in keys_of(SynthesizeSpec)
    assert "from_" not in keys_of(SynthesizeSpec)
