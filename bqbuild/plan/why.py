"""A node's key taken apart, then and now: every component, and what it reads of every input. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from bqbuild.core.errors import Where
from bqbuild.core.hashing import Digest
from bqbuild.core.records import Node, Part, ReadInput, Recipe
from bqbuild.plan.changes import Parts, Reason, first_change, part_names, shown_part
from bqbuild.plan.rebuild import Decision, Known

SAME, CHANGED, NEW, GONE, UNKNOWN = "same", "changed", "new", "gone", "unknown"

LINES = 40
"""Lines of a difference between two texts that are shown."""


@dataclass(frozen=True, slots=True)
class Change:
    """A part of a component that is not as it was; texts are empty where they are not known or would show a secret."""

    name: str
    shown: str
    status: str
    before: Part | None
    after: Part | None
    where: Where | None

    def lines(self) -> list[str]:
        """The texts' difference: lines that begin with `-`, `+` or a blank."""
        before, after = (part.text if part else "" for part in (self.before, self.after))
        if not before and not after:
            return []
        found = unified_diff(before.split("\n") if before else [], after.split("\n") if after else [], n=1, lineterm="")
        lines = [line for line in found if not line.startswith(("---", "+++", "@@"))]
        return [*lines[:LINES], f"… {len(lines) - LINES} more lines"] if len(lines) > LINES else lines

    def json(self) -> dict[str, Any]:
        """The form that `plan --why --json` prints."""
        return {
            "name": self.name,
            "status": self.status,
            "before": self.before.digest if self.before else None,
            "after": self.after.digest if self.after else None,
            "difference": self.lines(),
            **_place(self.where),
        }


@dataclass(frozen=True, slots=True)
class Component:
    """A component of the definition hash, and what changed in it as far as that is known."""

    name: str
    status: str
    before: Digest | None
    after: Digest | None
    where: Where | None
    changes: tuple[Change, ...] = ()

    def json(self) -> dict[str, Any]:
        """The form that `plan --why --json` prints."""
        found = {"name": self.name, "status": self.status, "before": self.before, "after": self.after}
        return found | _place(self.where) | {"changes": [change.json() for change in self.changes]}


@dataclass(frozen=True, slots=True)
class Input:
    """What is read of an input, then and now; `after` is None while the input is yet to be built. `rows` says what
    became of its rows, where that was looked at."""

    name: str
    status: str
    before: ReadInput | None
    after: ReadInput | None
    rows: str = ""

    def json(self) -> dict[str, Any]:
        """The form that `plan --why --json` prints."""
        found: dict[str, Any] = {"name": self.name, "status": self.status, "rows": self.rows or None}
        for side, read in (("before", self.before), ("after", self.after)):
            found[side] = {"columns": list(read.columns), "ids": read.ids, "digest": read.digest} if read else None
        return found


@dataclass(frozen=True, slots=True)
class Why:
    """Everything that a node's build key is made of, now and when its environment's table was built."""

    name: str
    kind: str
    action: str
    reasons: tuple[Reason, ...]
    key_before: Digest | None
    key_after: Digest | None
    components: tuple[Component, ...]
    inputs: tuple[Input, ...]

    def json(self) -> dict[str, Any]:
        """The form that `plan --why --json` prints."""
        return {
            "name": self.name,
            "kind": self.kind,
            "action": self.action,
            "reasons": [
                {"code": reason.code, "message": reason.message, **_place(reason.where)} for reason in self.reasons
            ],
            "key": {"before": self.key_before, "after": self.key_after},
            "components": [component.json() for component in self.components],
            "inputs": [given.json() for given in self.inputs],
        }


def explain(
    node: Node, recipe: Recipe, decision: Decision, inputs: Mapping[str, ReadInput] | None, known: Known
) -> Why:
    """Take the key of a node apart, as the decision about it compared it."""
    before = known.before
    return Why(
        name=str(node.name),
        kind=node.kind,
        action=decision.action,
        reasons=decision.reasons,
        key_before=before.key if before else None,
        key_after=decision.key,
        components=_components(recipe, known),
        inputs=_inputs(node, inputs, known),
    )


def _components(recipe: Recipe, known: Known) -> tuple[Component, ...]:
    before = known.before.components if known.before else {}
    is_equal = known.before is not None and known.before.recipe == recipe.digest
    now = {} if is_equal or not before else known.parts()
    then = None if is_equal or not before else known.parts_before()
    found = []
    for name in dict.fromkeys((*recipe.components, *before)):
        old, new = before.get(name), recipe.components.get(name)
        status = _status(old, new)
        place = recipe.places.get(name)
        changes = tuple(_changes(name, now, then, place)) if status != SAME and then is not None else ()
        found.append(Component(name, status, old, new, place, changes))
    return tuple(found)


def _changes(component: str, now: Parts, then: Parts, place: Where | None) -> list[Change]:
    found = []
    for name in part_names(component, now, then):
        before, after = then.get(name), now.get(name)
        status = _status(before.digest if before else None, after.digest if after else None)
        if status != SAME:
            where = (after.where if after else None) or place
            if before and after and after.is_source and where and where.line and before.text and after.text:
                where = Where(where.file, where.line + first_change(after.text, before.text))
            found.append(Change(name, shown_part(name).rstrip(","), status, before, after, where))
    return found


def _inputs(node: Node, inputs: Mapping[str, ReadInput] | None, known: Known) -> tuple[Input, ...]:
    before = known.before.inputs if known.before else {}
    names = [str(ref) for ref in node.refs] if inputs is None else list(inputs)
    found = []
    for name in dict.fromkeys((*names, *before)):
        old, new = before.get(name), inputs.get(name) if inputs is not None else None
        is_unknown = inputs is None and name in names
        status = UNKNOWN if is_unknown else _status(old.digest if old else None, new.digest if new else None)
        is_compared = status == CHANGED and old and new and old.columns == new.columns
        found.append(Input(name, status, old, new, known.rows(name) if is_compared else ""))
    return tuple(found)


def _status(before: Digest | None, after: Digest | None) -> str:
    if before == after:
        return SAME
    if before is None:
        return NEW
    return GONE if after is None else CHANGED


def _place(where: Where | None) -> dict[str, Any]:
    return {"file": where.file if where else None, "line": (where.line or None) if where else None}
