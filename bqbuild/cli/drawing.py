"""A graph as text: a tree for the terminal, DOT and Mermaid for everything that draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

Labels = Mapping[str, str]
Edges = Sequence[tuple[str, str]]
"""Pairs of what something is made from, and what is made."""


def tree(
    roots: Iterable[str], branches: Callable[[str], Sequence[str]], label: Callable[[str, str | None], str]
) -> Iterator[str]:
    """The lines of a tree below each root; `label` gets a name and the one that it hangs on.

    What was shown before is not shown again.
    """
    shown: set[str] = set()
    for root in roots:
        yield label(root, None)
        shown.add(root)
        yield from _branches(root, "", branches, label, shown)


def _branches(
    name: str,
    indent: str,
    branches: Callable[[str], Sequence[str]],
    label: Callable[[str, str | None], str],
    shown: set[str],
) -> Iterator[str]:
    below = branches(name)
    for number, child in enumerate(below):
        is_last = number + 1 == len(below)
        again = child in shown and bool(branches(child))
        yield f"{indent}{'└─ ' if is_last else '├─ '}{label(child, name)}{' (shown above)' if again else ''}"
        if not again:
            shown.add(child)
            yield from _branches(child, indent + ("   " if is_last else "│  "), branches, label, shown)


def dot(labels: Labels, edges: Edges) -> Iterator[str]:
    """Graphviz."""
    yield "digraph bqbuild {"
    yield "  rankdir=LR; node [shape=box];"
    for name, label in labels.items():
        yield f"  {_dot(name)} [label={_dot(label)}];"
    for origin, made in edges:
        yield f"  {_dot(origin)} -> {_dot(made)};"
    yield "}"


def mermaid(labels: Labels, edges: Edges) -> Iterator[str]:
    """Mermaid, as GitHub draws it."""
    numbers = {name: f"n{number}" for number, name in enumerate(labels)}
    yield "flowchart LR"
    for name, label in labels.items():
        text = label.replace("\n", "<br>").replace('"', "#quot;")
        yield f'  {numbers[name]}["{text}"]'
    for origin, made in edges:
        yield f"  {numbers[origin]} --> {numbers[made]}"


def _dot(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
