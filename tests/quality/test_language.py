from __future__ import annotations

import sys

import pytest

from bqbuild.core.errors import BuildError
from bqbuild.quality.language import LanguageDetector

pytest.importorskip("lingua", reason="the extra `language` is not installed")


@pytest.fixture(scope="module")
def english_or_chinese() -> LanguageDetector:
    return LanguageDetector(["en", "ZH"])


def test_languages_are_recognised_and_the_others_named(english_or_chinese: LanguageDetector) -> None:
    texts = [
        "What is the powerhouse of the cell, and what does it produce?",
        "下列有关物质跨膜运输的叙述，正确的是",
        "Bonjour, comment allez-vous aujourd'hui, mes chers amis ?",
        "2 + 2 = 4",
        "",
    ]
    assert english_or_chinese.reasons(texts) == [
        None,
        None,
        "language is fr",
        "no language recognised",
        "no language recognised",
    ]


def test_a_few_words_that_may_be_english_stay(english_or_chinese: LanguageDetector) -> None:
    assert english_or_chinese.detect(["Define mitosis.", "Compute $x^2+3$ for x=2"]) == ["it", "da"]
    assert english_or_chinese.reasons(["Define mitosis.", "Compute $x^2+3$ for x=2"]) == [None, None]
    assert english_or_chinese.reasons(["Der Hund schläft"]) == ["language is de"]


def test_the_neighbours_of_a_text_do_not_change_its_language(english_or_chinese: LanguageDetector) -> None:
    texts = ["Solve for x", "Où est la gare ?", "光合作用", "Der Hund schläft"] * 5
    together = english_or_chinese.detect(texts)
    assert together == [english_or_chinese.detect([text])[0] for text in texts]


def test_an_unknown_code_is_an_error_with_the_nearest_known_one() -> None:
    with pytest.raises(BuildError, match="`eng` is not a language code") as raised:
        LanguageDetector(["eng"])
    assert raised.value.hint is not None


def test_a_missing_lingua_is_an_error_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(BuildError, match="needs lingua, which is not installed") as raised:
        LanguageDetector(["en"])
    assert "pip install" in str(raised.value.hint)
