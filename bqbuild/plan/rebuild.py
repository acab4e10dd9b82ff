"""Must this node be built, and why? The one place that answers.

The same function runs in `plan` (where inputs may be unknown) and during a run (where they are not), and the reasons
come out of the comparison that makes the decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bqbuild.core.errors import Where
from bqbuild.core.hashing import Digest
from bqbuild.core.records import Node, ReadInput, Recipe, Trace
from bqbuild.plan.changes import Parts, Reason, changed_parts, shown_component

BUILD, MAYBE, CACHED = "build", "maybe", "cached"

PREPARED = "prepared"
"""Among the stats of a trace: `plan` built it to look further, and no run has published it yet."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a node. `key` is its build key where every input is known; `trace` is what is reused: by a
    node that is cached, and by one that `plan` has built already."""

    action: str
    reasons: tuple[Reason, ...]
    key: Digest | None = None
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered about a node: the trace under its build key, whether the tables of that trace are still
    there, and the trace that its environment points to. `asked_again` says that answers of it were renewed since, or
    are to be. What only explains is looked up when it is asked for: the parts of the recipe now and at that trace, and
    what became of the rows of an input since."""

    trace: Trace | None = None
    is_whole: bool = False
    before: Trace | None = None
    asked_again: Reason | None = None
    parts: Callable[[], Parts] = dict
    parts_before: Callable[[], Parts | None] = dict
    rows: Callable[[str], str] = field(default=lambda name: "")


def decide(
    node: Node,
    recipe: Recipe,
    inputs: Mapping[str, ReadInput] | None,
    known: Known,
    *,
    key: Digest | None = None,
    unbuilt: Sequence[str] = (),
    is_forced: bool = False,
) -> Decision:
    """Decide about one node. `inputs` is None while parents (named in `unbuilt`) are yet to be built."""
    if is_forced:
        return Decision(BUILD, (Reason("forced", "--full-refresh builds it again"),), key)
    if known.asked_again is not None:
        return Decision(BUILD, (known.asked_again,), key)
    if inputs is None:
        return _undecided(node, recipe, known, unbuilt)
    if known.trace is None:
        return Decision(BUILD, _changes(node, recipe, inputs, known), key)
    if not known.trace.complete:
        return Decision(BUILD, (Reason("incomplete", _missing_rows(known.trace)),), key)
    if not known.is_whole:
        return Decision(BUILD, (Reason("missing_table", "its table is no longer in the store"),), key)
    if known.trace.stats.get(PREPARED) and (known.before is None or known.before.key != known.trace.key):
        # `plan` built it to look further; for the environment it is still news
        return Decision(BUILD, _changes(node, recipe, inputs, known), key, known.trace)
    return Decision(CACHED, (Reason("unchanged", "nothing that it reads has changed"),), key, known.trace)


def _undecided(node: Node, recipe: Recipe, known: Known, unbuilt: Sequence[str]) -> Decision:
    if known.before is None:
        return Decision(BUILD, (Reason("new", "it has not been built in this environment", node.where),))
    changed = _recipe_changes(recipe, known.before, known)
    names = ", ".join(f"`{name}`" for name in unbuilt)
    waiting = Reason("parent", f"depends on what {names} will contain")
    return Decision(BUILD if changed else MAYBE, (*changed, waiting))


def _missing_rows(trace: Trace) -> str:
    missing = trace.stats.get("missing", 0)
    return f"{missing} rows have no answer yet" if missing else "rows have no answer yet"


def _changes(node: Node, recipe: Recipe, inputs: Mapping[str, ReadInput], known: Known) -> tuple[Reason, ...]:
    if known.before is None:
        return (Reason("new", "it has not been built in this environment", node.where),)
    changed = [*_recipe_changes(recipe, known.before, known), *_input_changes(node, inputs, known.before, known)]
    return tuple(changed) or (Reason("unknown_build", "no build of exactly these inputs is recorded", node.where),)


def _recipe_changes(recipe: Recipe, before: Trace, known: Known) -> list[Reason]:
    if recipe.digest == before.recipe:
        return []
    now, then = known.parts(), known.parts_before()
    reasons: list[Reason] = []
    for name, value in recipe.components.items():
        if before.components.get(name) == value:
            continue
        place = recipe.places.get(name)
        detailed = changed_parts(name, now, then, place) if then is not None and name in before.components else []
        word = "changed" if name in before.components else "is new"
        reasons += detailed or [Reason("changed", f"{shown_component(name)} {word}", place)]
    for name in before.components:
        if name not in recipe.components:
            reasons.append(Reason("changed", f"{shown_component(name)} is gone"))
    reasons = list(dict.fromkeys(reasons))
    return reasons or [Reason("semantics", f"this release builds `{recipe.kind}` nodes differently")]


def _input_changes(node: Node, inputs: Mapping[str, ReadInput], before: Trace, known: Known) -> list[Reason]:
    reasons = []
    for name, given in inputs.items():
        earlier = before.inputs.get(name)
        if earlier is None:
            reasons.append(Reason("input", f"it now reads `{name}`", node.where))
        elif earlier.digest != given.digest:
            code = "lock" if node.kind == "source" and name == "lock" else "input"
            rows = known.rows(name) if given.columns == earlier.columns else ""
            message = rows or _input_message(node, name, given, earlier)
            reasons.append(Reason(code, message, _input_place(node, name)))
    for name in before.inputs:
        if name not in inputs:
            reasons.append(Reason("input", f"it no longer reads `{name}`", node.where))
    return reasons


def _input_place(node: Node, name: str) -> Where:
    """Where to look: for a source, at its files, where it is one file of the project."""
    if node.kind != "source":
        return node.where
    if name == "lock":
        return Where("project/sources.lock")
    paths = node.spec.path
    is_file = len(paths) == 1 and "://" not in paths[0] and not set(paths[0]) & set("*?[")
    return Where(f"project/{paths[0]}") if is_file else node.where


def _input_message(node: Node, name: str, given: ReadInput, earlier: ReadInput) -> str:
    if node.kind == "source":
        return {"files": "its files changed", "sample": "another sample is taken of it"}.get(
            name, "its columns in sources.lock changed"
        )
    added = [column for column in given.columns if column not in earlier.columns]
    gone = [column for column in earlier.columns if column not in given.columns]
    if added or gone:
        parts = [f"gained `{column}`" for column in added] + [f"lost `{column}`" for column in gone]
        return f"what it reads of `{name}` {', '.join(parts)}"
    shown = ", ".join(f"`{column}`" for column in given.columns[:6]) + (" …" if len(given.columns) > 6 else "")
    return f"`{name}` has other content in {shown or 'its rows'}"
