"""From a recorded reply to the values of columns. Pure, so that a change here costs tables and never calls.

Nothing an LLM writes may crash or hang this: every way out is `Parsed` or `Unusable`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bqbuild.config.specs import OutputSpec
from bqbuild.core.records import ChatReply, Message
from bqbuild.llm.json_reply import Number, ends_open, read_json, restore_latex
from bqbuild.llm.schema import constraint_for, described, json_schema
from bqbuild.llm.values import Unusable, column_value, match_label, storable

__all__ = ["Parsed", "Unusable", "constraint_for", "json_schema", "parse_reply", "reask", "split_reasoning"]

REFUSALS = ("content_filter", "refusal")
MAX_QUOTED = 4000
"""Characters of an unusable reply that a re-ask quotes."""

_THINK = re.compile(r"\s*<(think|thinking|reasoning)>", re.IGNORECASE)
_THOUGHTS = re.compile(r"</?(?:think|thinking|reasoning)>", re.IGNORECASE)
_WRAPPERS = 3


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a reply makes: one dict of column values an item; `cut` counts the items beyond `max_items`.

    `reasoning` is what the LLM thought before it answered, where it said so.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    cut: int = 0
    reasoning: str | None = None


def parse_reply(reply: ChatReply, output: OutputSpec) -> Parsed:
    """The values that `output` wants from `reply`. Raises Unusable: `unparsable`, `truncated`, `refused`, `empty`."""
    if reply.finish_reason in REFUSALS:
        raise Unusable("refused", "the LLM refused to answer")
    text, reasoning = split_reasoning(reply)
    truncated = reply.finish_reason == "length"
    if truncated and _lacks_its_end(text, output):
        raise _cut_off(reply, "while the LLM was still reasoning" if reasoning and not text else "")
    if not text:
        raise Unusable("empty", "the reply is empty")
    try:
        items = _READERS[output.format](text, output)
    except Unusable as problem:
        if truncated:
            raise _cut_off(reply, problem.message) from None
        raise Unusable(problem.reason, problem.message, hint=f"answer with {described(output)}") from None
    if items and all(_blank(item) for item in items):
        raise Unusable("empty", "every column of the reply is empty")
    kept = items if output.max_items is None or not output.explode else items[: output.max_items]
    return Parsed(kept, len(items) - len(kept), reasoning or None)


def split_reasoning(reply: ChatReply) -> tuple[str, str]:
    """The answer and the reasoning of a reply, both stripped: `<think>` blocks at the start are reasoning.

    A block that was never closed is reasoning to its end; one that was opened by the prompt is closed all the same.
    """
    text, thoughts = _without_thoughts(reply.text)
    parts = [part.strip() for part in (reply.reasoning, *thoughts) if part.strip()]
    return text.strip(), storable("\n\n".join(parts))


def _without_thoughts(text: str) -> tuple[str, list[str]]:
    """The text behind its `<think>` blocks, and what stands in them."""
    thoughts: list[str] = []
    position = 0
    while opening := _THINK.match(text, position):
        end, position = _end_of_thought(text, opening.end())
        thoughts.append(text[opening.end() : end])
    first = _THOUGHTS.search(text) if not thoughts else None
    if first and first[0].startswith("</"):  # the prompt has opened it
        return text[first.end() :], [text[: first.start()]]
    return text[position:], thoughts


def _end_of_thought(text: str, start: int) -> tuple[int, int]:
    """Where a block that begins at `start` ends, and where the text goes on.

    That is the tag that closes it, blocks inside it aside; else, as an LLM may only have spoken of such a tag, the last
    one that closes anything; else nowhere.
    """
    depth, last = 1, (len(text), len(text))
    for tag in _THOUGHTS.finditer(text, start):
        depth += -1 if tag[0].startswith("</") else 1
        if tag[0].startswith("</"):
            last = (tag.start(), tag.end())
        if depth == 0:
            break
    return last


def _lacks_its_end(text: str, output: OutputSpec) -> bool:
    """Whether the end of a reply that was cut off is missed: what was complete may be a draft, or half a list."""
    if output.format == "json":
        return not text or ends_open(text)
    if output.format == "tags":
        tags = re.findall(rf"<(/?)(?:{'|'.join(map(re.escape, output.columns))})\s*>", text, re.IGNORECASE)
        return not tags or tags[-1] == ""
    return not text or output.format == "text"


def _cut_off(reply: ChatReply, detail: str) -> Unusable:
    after = f", after {reply.output_tokens} tokens" if reply.output_tokens else ""
    detail = f": {detail}" if detail else ""
    message = f"the reply was cut off at the token limit{after}{detail} (raise `params.max_tokens`)"
    return Unusable("truncated", message)


def reask(messages: Sequence[Message], reply: ChatReply, problem: Unusable) -> tuple[Message, ...]:
    """The conversation that asks once more: the unusable reply, and what was wrong with it."""
    answer, _ = split_reasoning(reply)
    wanted = problem.hint or "answer in the form that was asked for"
    complaint = f"Your answer cannot be used: {problem.message}. Please {wanted}, and nothing else."
    return (
        *messages,
        Message("assistant", storable(answer[:MAX_QUOTED]) or "(no answer)"),
        Message("user", complaint),
    )


def _read_text(text: str, output: OutputSpec) -> list[dict[str, Any]]:
    name, column = next(iter(output.columns.items()))
    return [{name: column_value(name, column, storable(text))}]


def _read_choice(text: str, output: OutputSpec) -> list[dict[str, Any]]:
    name, column = next(iter(output.columns.items()))
    if text[0] in "[{":
        for value in read_json(text):
            inner = _single(value)
            if inner is not None and match_label(inner, column.labels) is not None:
                return [{name: column_value(name, column, inner)}]
    label = match_label(text, column.labels)
    if label is None:
        shown = storable(text[:60]).replace("\n", " ")
        raise Unusable("unparsable", f"no single label of `{name}` in '{shown}'")
    return [{name: column_value(name, column, label)}]


def _single(value: Any) -> str | None:
    """The only scalar in a list or object of one."""
    while isinstance(value, list | dict) and len(value) == 1:
        value = next(iter(value.values() if isinstance(value, dict) else value))
    return value if isinstance(value, str) else None


def _read_tags(text: str, output: OutputSpec) -> list[dict[str, Any]]:
    found = _tagged(text, output)
    counts = {name: len(values) for name, values in found.items()}
    for name, count in counts.items():
        if not count:
            raise Unusable("unparsable", f"<{name}> is missing")
    if not output.explode:
        # A draft may come before the final answer, so the last one counts.
        return [{name: column_value(name, output.columns[name], values[-1]) for name, values in found.items()}]
    if len(set(counts.values())) > 1:
        raise Unusable("unparsable", f"tags differ in number: {', '.join(f'{n} {k}' for k, n in counts.items())}")
    rows = zip(*found.values(), strict=True)
    return [
        {name: column_value(name, output.columns[name], value) for name, value in zip(found, row, strict=True)}
        for row in rows
    ]


def _tagged(text: str, output: OutputSpec) -> dict[str, list[str]]:
    """What stands in each tag, in one pass; a last tag that a stop sequence left open ends with the text."""
    names = {name.casefold(): name for name in output.columns}
    pattern = re.compile(rf"<(/?)({'|'.join(map(re.escape, output.columns))})\s*>", re.IGNORECASE)
    # sorted, as the first one that is missing is named in the re-ask, which is a call: the order of keys is form
    found: dict[str, list[str]] = {name: [] for name in sorted(output.columns)}
    open_name, begin = "", 0
    for match in pattern.finditer(text):
        name = names.get(match[2].casefold(), "")
        if not match[1] and not open_name:
            open_name, begin = name, match.end()
        elif match[1] and name == open_name and open_name:
            found[name].append(text[begin : match.start()].strip())
            open_name = ""
    if open_name:
        found[open_name].append(text[begin:].strip())
    return found


def _read_json(text: str, output: OutputSpec) -> list[dict[str, Any]]:
    values = read_json(text)
    if not values:
        raise Unusable("unparsable", "no complete JSON in the reply")
    if output.explode:
        return [_item(part, output, number) for number, part in enumerate(_parts(values, output), 1)]
    # The last one counts, as a draft may come before the final answer; `[1]` in prose is no answer.
    objects = [value for value in values if isinstance(value, dict)]
    others = [value for value in values if not isinstance(value, dict)]
    problem: Unusable | None = None
    for value in (*reversed(objects), *reversed(others)):
        try:
            return [_item(_unwrap(value, output), output)]
        except Unusable as error:
            problem = problem or error
    raise problem or Unusable("unparsable", "no complete JSON in the reply")


def _unwrap(value: Any, output: OutputSpec) -> Any:
    """The object inside lists of one and objects of one key that is no column."""
    for _ in range(_WRAPPERS):
        if isinstance(value, list):
            if len(value) != 1:
                raise Unusable("unparsable", f"{len(value)} items where one is expected")
            value = value[0]
        elif isinstance(value, dict) and len(value) == 1 and not _has_columns(value, output):
            inner = next(iter(value.values()))
            if not isinstance(inner, list | dict):
                break
            value = inner
        else:
            break
    return value


def _parts(values: list[Any], output: OutputSpec) -> list[Any]:
    """The items of an exploding reply: the last list in it, else every object."""
    lists = [part for value in values if (part := _listed(value, output)) is not None]
    if lists:  # `[1]` in prose is no answer, unless there is no better one
        return ([part for part in lists if not (part and isinstance(part[0], Number))] or lists)[-1]
    objects = [value for value in values if isinstance(value, dict) and _has_columns(value, output)]
    return objects or values[-1:]


def _listed(value: Any, output: OutputSpec) -> list[Any] | None:
    """The list that `value` is, or wraps as its only list."""
    if isinstance(value, list):
        fits = not value or isinstance(value[0], dict) or len(output.columns) == 1
        return value if fits else None
    if not isinstance(value, dict):
        return None
    if _has_columns(value, output):
        inner = next(iter(value.values())) if len(value) == 1 and len(output.columns) == 1 else None
        return inner if isinstance(inner, list) and not _wants_list(output) else None
    lists = [inner for inner in value.values() if isinstance(inner, list)]
    return lists[0] if len(lists) == 1 else None


def _wants_list(output: OutputSpec) -> bool:
    kind = next(iter(output.columns.values())).type.lower()
    return kind.startswith(("list", "array", "json")) or kind.endswith("[]")


def _item(value: Any, output: OutputSpec, number: int = 0) -> dict[str, Any]:
    prefix = f"item {number}: " if number else ""
    if not isinstance(value, dict):
        if len(output.columns) != 1 or isinstance(value, list):
            raise Unusable("unparsable", f"{prefix}no JSON object")
        value = {next(iter(output.columns)): value}
    try:
        # sorted for the same reason as tags are
        return {
            name: column_value(name, column, restore_latex(_pick(value, name)))
            for name, column in sorted(output.columns.items())
        }
    except Unusable as problem:
        raise Unusable(problem.reason, prefix + problem.message) from None


def _pick(value: dict[str, Any], name: str) -> Any:
    """The value under `name`; `Name`, `NAME` or `my name` for `my_name` are forgiven where they are unambiguous."""
    if name in value:
        return value[name]
    near = [key for key in value if _plain(key) == _plain(name)]
    if len(near) != 1:
        raise Unusable("unparsable", f"column `{name}` is missing")
    return value[near[0]]


def _has_columns(value: dict[str, Any], output: OutputSpec) -> bool:
    """Whether any key of `value` is a column."""
    plain = {_plain(key) for key in value}
    return any(_plain(name) in plain for name in output.columns)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip()).casefold()


def _blank(item: dict[str, Any]) -> bool:
    return all(isinstance(value, str) and not value.strip() for value in item.values())


_READERS = {"json": _read_json, "text": _read_text, "tags": _read_tags, "choice": _read_choice}
