"""Replies into columns: formats, tolerance, and the ways in which a reply is unusable."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bqbuild.config.specs import OutputSpec
from bqbuild.core.records import ChatReply, Message
from bqbuild.llm.parsing import Parsed, Unusable, parse_reply, reask, split_reasoning


def output(format: str, columns: dict[str, Any], **rest: Any) -> OutputSpec:
    return OutputSpec.model_validate({"format": format, "columns": columns, **rest})


QA = {"question": "string", "answer": "string"}
JSON = output("json", QA)
MANY = output("json", QA, explode=True, max_items=3)
ONE = output("json", {"q": "string"})
ONES = output("json", {"q": "string"}, explode=True)
TAGS = output("tags", QA)
MANY_TAGS = output("tags", QA, explode=True)
CHOICE = output("choice", {"difficulty": {"values": ["1", "2", "3"]}})
TEXT = output("text", {"answer": "string"}, reasoning="why")
ALL = [JSON, MANY, ONE, ONES, TAGS, MANY_TAGS, CHOICE, TEXT]


def items(text: str, spec: OutputSpec, **reply: Any) -> list[dict[str, Any]]:
    return parse_reply(ChatReply(text, **reply), spec).items


def problem(text: str, spec: OutputSpec, **reply: Any) -> Unusable:
    with pytest.raises(Unusable) as caught:
        parse_reply(ChatReply(text, **reply), spec)
    return caught.value


def qa(question: str, answer: str) -> dict[str, str]:
    return {"question": question, "answer": answer}


@pytest.mark.parametrize(
    "text",
    [
        '{"question": "q", "answer": "a"}',
        '{"answer": "a", "question": "q", "extra": 1}',
        '[{"question": "q", "answer": "a"}]',
        '{"result": {"Question": "q", "ANSWER": "a"}}',
        'The form is {"question": "...", "answer": "..."}. Now: {"question": "q", "answer": "a"}',
        '```json\n{"question": "q", "answer": "a",}\n```\nSee [1].',
        '<think>{"question": "no", "answer": "no"}</think>{"question": "q", "answer": "a"}',
    ],
)
def test_one_object_is_one_item(text: str) -> None:
    assert items(text, JSON) == [qa("q", "a")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "q"}', "column `answer` is missing"),
        ('{"question": "q", "answer": null}', "column `answer` is null"),
        ('{"question": "q", "answer": ["a"]}', "column `answer` is a list, not a text"),
        ('[{"question": "q", "answer": "a"}, {"question": "q", "answer": "a"}]', "2 items where one is expected"),
        ("I cannot do that.", "no complete JSON"),
        ('{"question": "q", "answer": "a', "no complete JSON"),
        ('{"Question": "q", "QUESTION": "r", "answer": "a"}', "column `question` is missing"),
    ],
)
def test_what_is_wrong_with_json_is_said(text: str, message: str) -> None:
    found = problem(text, JSON)
    assert found.reason == "unparsable"
    assert message in found.message
    assert found.hint == "answer with one JSON object with the keys answer (string), question (string)"


@pytest.mark.parametrize(
    "text",
    [
        '[{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}]',
        '{"items": [{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}], "count": 2}',
        '{"question": "q", "answer": "a"}\n{"question": "r", "answer": "b"}',
        'Two, as in [1]:\n[{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}]\n[1] a book',
    ],
    ids=["list", "wrapped", "lines", "in prose"],
)
def test_a_list_explodes(text: str) -> None:
    assert items(text, MANY) == [qa("q", "a"), qa("r", "b")]


def test_exploding_takes_one_object_and_an_empty_list_too() -> None:
    assert items('{"question": "q", "answer": "a"}', MANY) == [qa("q", "a")]
    assert items("[]", MANY) == []


def test_items_beyond_the_most_are_cut_and_counted() -> None:
    text = "[" + ",".join(['{"question": "q", "answer": "a"}'] * 5) + "]"
    parsed = parse_reply(ChatReply(text), MANY)
    assert (len(parsed.items), parsed.cut) == (3, 2)


def test_a_bad_item_is_named_by_its_number() -> None:
    assert (
        "item 2: column `answer` is missing"
        in problem('[{"question":"q","answer":"a"},{"question":"r"}]', MANY).message
    )


@pytest.mark.parametrize(
    "text", ['["a", "b"]', '{"q": ["a", "b"]}', '{"questions": ["a", "b"]}', '[{"q": "a"}, {"q": "b"}]']
)
def test_a_single_column_explodes_from_plain_texts(text: str) -> None:
    assert items(text, ONES) == [{"q": "a"}, {"q": "b"}]


def test_a_footnote_is_no_answer() -> None:
    assert items('{"q": "a"} see [1]', ONE) == [{"q": "a"}]
    assert items('{"q": ["a"]} see [1]', ONES) == [{"q": "a"}]


def test_tags_are_read_whatever_their_case_and_with_the_last_left_open_by_a_stop_word() -> None:
    assert items("<Question> q </Question>\n<answer>a", TAGS) == [qa("q", "a")]


def test_the_last_of_repeated_tags_counts() -> None:
    assert items("<question>draft</question><question>q</question><answer>a</answer>", TAGS) == [qa("q", "a")]


def test_tags_explode_in_pairs() -> None:
    text = "<question>q</question><answer>a</answer><question>r</question><answer>b</answer>"
    assert items(text, MANY_TAGS) == [qa("q", "a"), qa("r", "b")]
    assert "differ in number: 1 answer, 2 question" in problem(text[:-18], MANY_TAGS).message


def test_a_tag_inside_another_is_text() -> None:
    assert (
        items("<question>what is <answer>?</question><answer>a tag</answer>", TAGS)[0]["question"]
        == "what is <answer>?"
    )


@pytest.mark.parametrize("text", ["2", " 2.\n", '"2"', '{"label": "2"}', '["2"]', "The difficulty is 2", "Label: 2"])
def test_a_choice_is_one_of_its_labels(text: str) -> None:
    assert items(text, CHOICE) == [{"difficulty": "2"}]


def test_no_label_or_two_is_unusable() -> None:
    assert problem("1 or 2", CHOICE).reason == "unparsable"
    assert problem("hard", CHOICE).hint == "answer with exactly one of: 1, 2, 3"


def test_text_is_the_whole_reply_without_its_reasoning() -> None:
    parsed = parse_reply(ChatReply("<think> because </think>\n\nyes ", reasoning="first"), TEXT)
    assert (parsed.items, parsed.reasoning) == ([{"answer": "yes"}], "first\n\nbecause")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", ("plain", "")),
        ("<think>a</think>b", ("b", "a")),
        ("a</think>b", ("b", "a")),
        ("<think>never closed", ("", "never closed")),
        ("<think></think>b", ("b", "")),
        ("<think>a</think>\n<think>b</think>c", ("c", "a\n\nb")),
        ("<think>a</think><think>never closed", ("", "a\n\nnever closed")),
        ("<think>a<think>b</think>c</think>d", ("d", "a<think>b</think>c")),
        ("<think>I use <think> here</think>d", ("d", "I use <think> here")),
        ("<think>a</think>the tag <think> is one", ("the tag <think> is one", "a")),
        ("use <think> and </think> in HTML", ("use <think> and </think> in HTML", "")),
        ("<THINKING>a</THINKING> b", ("b", "a")),
    ],
)
def test_reasoning_is_split_off_at_the_start_only(text: str, expected: tuple[str, str]) -> None:
    assert split_reasoning(ChatReply(text)) == expected


def test_reasons_for_failure_are_told_apart() -> None:
    assert problem("", TEXT).reason == "empty"
    assert problem(" \n", JSON).reason == "empty"
    assert problem('{"question": "", "answer": " "}', JSON).reason == "empty"
    assert problem("sorry", TEXT, finish_reason="content_filter").reason == "refused"
    assert problem("half a sent", TEXT, finish_reason="length").reason == "truncated"
    assert problem("<think>half a thou", TEXT, finish_reason="length").reason == "truncated"
    assert problem('{"question": "q", "answer": "a', JSON, finish_reason="length").reason == "truncated"
    cut = problem('{"question": "q", "answer": "a', JSON, finish_reason="length", output_tokens=200)
    assert cut.message.startswith("the reply was cut off at the token limit, after 200 tokens")
    assert "raise `params.max_tokens`" in cut.message
    assert "still reasoning" in problem("<think>half", TEXT, finish_reason="length").message


def test_a_reply_at_the_limit_that_is_whole_all_the_same_is_used() -> None:
    assert items('{"question": "q", "answer": "a"}\n\nIn other', JSON, finish_reason="length") == [qa("q", "a")]
    assert items("2", CHOICE, finish_reason="length") == [{"difficulty": "2"}]


HALF_LIST = '[{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}'


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        (HALF_LIST, MANY),
        (HALF_LIST + ', {"quest', MANY),
        ('{"items": ' + HALF_LIST, MANY),
        ('Draft: {"question": "q", "answer": "a"}. Final: {"question": "q", "answer": "better', JSON),
        ("<question>q</question><answer>half an ans", TAGS),
        ("<question>q</question><answer>a</answer><question>r</question><answer>ha", MANY_TAGS),
    ],
)
def test_what_was_complete_before_a_reply_was_cut_off_is_no_answer(text: str, spec: OutputSpec) -> None:
    """It may be a draft, or half of a list: nobody would see that the rest is missing."""
    assert problem(text, spec, finish_reason="length").reason == "truncated"


def test_many_blocks_of_thought_take_no_longer_than_their_length() -> None:
    for text in ("<think></think>" * 200_000, "<think>" * 200_000, "<think>a</think>" * 200_000 + "b"):
        split_reasoning(ChatReply(text))


def test_a_reask_quotes_the_reply_the_problem_and_what_is_wanted() -> None:
    messages = (Message("system", "s"), Message("user", "u"))
    reply = ChatReply("<think>hm</think>dunno")
    again = reask(messages, reply, problem("dunno", CHOICE))
    assert again[:3] == (*messages, Message("assistant", "dunno"))
    assert again[3].role == "user"
    assert "no single label of `difficulty` in 'dunno'. Please answer with exactly one of: 1, 2, 3" in again[3].content


def test_a_reask_is_the_same_every_time_and_bounded() -> None:
    reply = ChatReply("x" * 100_000 + "\x00")
    again = reask((), reply, problem("dunno", CHOICE))
    assert again == reask((), reply, problem("dunno", CHOICE))
    assert len(again[0].content) == 4000
    assert reask((), ChatReply(""), problem("", CHOICE))[0].content == "(no answer)"


HOSTILE = [
    "[" * 99_999,
    '{"question":' * 9_999,
    "<question>" * 50_000,
    "\x00\ud800",
    "9" * 99_999,
    "1 " * 50_000,
    "</think>" * 9_999,
]


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: f"{spec.format}{' explode' if spec.explode else ''}")
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_replies_are_parsed_or_unusable(text: str, spec: OutputSpec) -> None:
    check_total(text, spec)


@given(st.text(alphabet='{}[]",:\\<>/question 12\n\x00\ud800', max_size=80), st.sampled_from(ALL), st.booleans())
def test_any_reply_is_parsed_or_unusable(text: str, spec: OutputSpec, cut: bool) -> None:
    check_total(text, spec, "length" if cut else "stop")


def check_total(text: str, spec: OutputSpec, finish: str = "stop") -> None:
    reason = ""
    parsed = Parsed()
    try:
        parsed = parse_reply(ChatReply(text, finish_reason=finish), spec)
    except Unusable as error:
        reason = error.reason
    assert reason in ("", "unparsable", "truncated", "refused", "empty")
    for item in parsed.items:
        assert list(item) == list(spec.columns)
        for value in item.values():
            value.encode()  # no lone surrogates
            assert "\x00" not in value
