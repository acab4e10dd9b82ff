"""What became of the rows of an input since a node was built, in words, for `plan`."""

from __future__ import annotations

from bqbuild.core.errors import BuildError, StoreError
from bqbuild.core.records import Node, Table, Trace
from bqbuild.run.comparison import RowChanges, compare_rows
from bqbuild.run.inputs import read_inputs
from bqbuild.run.state import State

MOST_ROWS = 4_000_000
"""Rows of both tables together that a plan compares one by one; of more it gives the numbers alone."""

NAMED = 4
"""Columns that are named; of more, so many."""


def explain_rows(state: State, node: Node, name: str, before: Trace) -> str:
    """How the input `name` of a node differs from what the trace `before` read; empty where that cannot be told."""
    parents = state.parents(node) or {}
    earlier = _earlier(state, node, name)
    if name not in parents or earlier is None:
        return ""
    try:
        read = read_inputs(state.session, node, {**parents, name: earlier})[name]
        if read.digest != before.inputs[name].digest or parents[name].digest == earlier.digest:
            return ""  # the node was built from another table than the one that its environment has
        if earlier.rows + parents[name].rows > MOST_ROWS:
            return f"`{name}` has {parents[name].rows:,} rows and had {earlier.rows:,}"
        changes = compare_rows(state.session.store, earlier, parents[name], read.columns)
    except (BuildError, StoreError):
        return ""  # an explanation is no reason to fail: a run will say what is wrong, where anything is
    return f"`{name}`: {described(changes)}"


def described(changes: RowChanges) -> str:
    """`5 rows added, 2 removed, 1 changed in `text``."""
    if changes.is_empty:
        return "the same values, with other row ids or calls"
    named = ", ".join(f"`{column}`" for column in list(changes.columns)[:NAMED])
    more = f" and {len(changes.columns) - NAMED} more columns" if len(changes.columns) > NAMED else ""
    parts = [
        f"{number:,}{{}} {word}"
        for number, word in (
            (changes.added, "added"),
            (changes.removed, "removed"),
            (changes.changed, f"changed in {named}{more}"),
        )
        if number
    ]
    first = changes.added or changes.removed or changes.changed
    return ", ".join(parts).replace("{}", " row" if first == 1 else " rows", 1).replace("{}", "")


def _earlier(state: State, node: Node, name: str) -> Table | None:
    """The table of the input that the environment still points to."""
    for ref in node.refs:
        if str(ref) == name and ref.node in state.pointers:
            digest = state.pointers[ref.node].tables.get(ref.side)
            return state.session.store.tables.find(digest) if digest else None
    return None
