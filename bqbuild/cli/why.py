"""How `plan --why` is printed: a model's key taken apart, then and now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from bqbuild.cli.output import safe

if TYPE_CHECKING:
    from bqbuild.core.hashing import Digest
    from bqbuild.core.records import ReadInput
    from bqbuild.plan.why import Change, Component, Input, Why

DIGITS = 12
"""Digits of a digest that are shown; --json gives all."""

NAME_WIDTH = 26

STYLES = {"same": "bright_black", "changed": "yellow", "new": "green", "gone": "red", "unknown": "bright_black"}


def why_lines(why: Why) -> Iterator[str]:
    """All that is told of one model."""
    yield f"{click.style(why.name, bold=True)} ({why.kind}): {why.action}"
    for reason in why.reasons:
        yield f"  {safe(reason.message)}" + (f" ({reason.where})" if reason.where else "")
    after = _short(why.key_after) if why.key_after else "not known before its inputs are built"
    yield f"  {'build key':<{NAME_WIDTH + 8}} {_short(why.key_before)} → {after}"
    for component in why.components:
        yield from _component(component)
    for given in why.inputs:
        yield from _input(given)


def _component(component: Component) -> Iterator[str]:
    place = f"  {component.where}" if component.where and not component.changes else ""
    yield _line(component.status, component.name, component.before, component.after) + place
    for change in component.changes:
        yield from _change(change)


def _change(change: Change) -> Iterator[str]:
    place = f" ({change.where})" if change.where else ""
    yield f"            {safe(change.shown)} {_word(change.status)}{place}"
    for line in change.lines():
        color = {"-": "red", "+": "green"}.get(line[:1])
        yield click.style(f"              {safe(line)}", fg=color)


def _input(given: Input) -> Iterator[str]:
    before, after = given.before, given.after
    digests = (before.digest if before else None, after.digest if after else None)
    yield _line(given.status, f"input {given.name}", *digests)
    if given.status not in ("same", "unknown"):
        for word, read in (("read", before), ("reads", after)):
            if read is not None and (before is None or after is None or before.columns != after.columns):
                yield f"            {word} {_columns(read)}"
    if given.rows:
        yield f"            {safe(given.rows)}"


def _line(status: str, name: str, before: Digest | None, after: Digest | None) -> str:
    shown = _short(after) if status == "same" else f"{_short(before)} → {_short(after)}"
    return f"  {click.style(f'{status:<7}', fg=STYLES[status])} {safe(name):<{NAME_WIDTH}} {shown}"


def _word(status: str) -> str:
    return {"new": "is new", "gone": "is gone"}.get(status, status)


def _columns(read: ReadInput) -> str:
    return ", ".join(safe(column) for column in read.columns) or "no columns"


def _short(digest: Digest | None) -> str:
    return str(digest)[:DIGITS] if digest else "–"
