"""Writes the model card of a trained LLM: what it was trained on, from which sources and prompts, and how it went."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bqbuild.config.project import Project
from bqbuild.core.records import Node, NodeName, Table
from bqbuild.llm.weights import EMBEDDED_NAMES
from bqbuild.train.loop import Point, TrainConfig

RANDOM_WEIGHTS = "a config, with random weights"
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
NOT_SHOWN = ("threads", "checkpoint_every")
"""Settings that change no weight beyond the last digits; a card that showed them would change with them."""


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What training read: numbers of documents and tokens."""

    training_documents: int
    training_tokens: int
    heldout_documents: int
    heldout_tokens: int


def model_card(
    node: Node,
    project: Project,
    inputs: Mapping[str, Table],
    data: DataFacts,
    config: TrainConfig,
    curve: Sequence[Point],
) -> str:
    """The card as Markdown with Hugging Face's front matter. The same training gives the same card."""
    base = _base_name(node.spec.base)
    settings = {name: value for name, value in asdict(config).items() if name not in NOT_SHOWN}
    last = curve[-1]
    epochs = last.tokens / data.training_tokens
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *([f"base_model: {json.dumps(base)}"] if base and "/" in base else []),
        f"tags: {json.dumps(['bqbuild', project.spec.name])}",
        "---",
        "",
        f"# {node.name}",
        "",
        *([node.spec.description.strip(), ""] if node.spec.description.strip() else []),
        f"Trained by bqbuild from {base or RANDOM_WEIGHTS}: "
        f"{config.steps} steps, {last.tokens:,} tokens ({epochs:.2f} epochs).",
        "",
        "| | documents | tokens |",
        "|---|---:|---:|",
        f"| training | {data.training_documents:,} | {data.training_tokens:,} |",
        f"| held out | {data.heldout_documents:,} | {data.heldout_tokens:,} |",
        "",
        "| loss, nats a token | before | after |",
        "|---|---:|---:|",
        f"| held out | {_figure(curve[0].heldout_loss)} | {_figure(last.heldout_loss)} |",
        f"| training | {_figure(curve[1].loss)} | {_figure(last.loss)} |",
        "",
        "## Data lineage",
        "",
        *(f"- read `{name}`, table `{table.digest}`, {table.rows:,} rows" for name, table in sorted(inputs.items())),
        "",
        *_lineage(node, project),
        "",
        "## Training",
        "",
        "```json",
        json.dumps({**settings, "steps": config.steps}, indent=2, sort_keys=True),
        "```",
        "",
    ]
    return "\n".join(lines)


def _base_name(base: str | dict[str, Any]) -> str:
    """The base as others can find it: a hub id, the name of a train node, or a folder's name without its path."""
    if isinstance(base, dict):
        return ""
    if base in EMBEDDED_NAMES:
        return EMBEDDED_HUB_ID
    return base if not base.startswith(("/", ".", "~")) else Path(base).name


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _lineage(node: Node, project: Project) -> list[str]:
    """A table of everything upstream, by name."""
    names = sorted(_ancestors(node, project))
    rows = [_row(project.nodes[name], project) for name in names]
    return ["| model | kind | declared in | made by, licence |", "|---|---|---|---|", *rows]


def _ancestors(node: Node, project: Project) -> set[NodeName]:
    found: set[NodeName] = set()
    waiting = [ref.node for ref in node.refs]
    while waiting:
        name = waiting.pop()
        if name in project.nodes and name not in found:
            found.add(name)
            waiting += [ref.node for ref in project.nodes[name].refs]
    return found


def _row(node: Node, project: Project) -> str:
    cells = [f"`{node.name}`", node.kind, node.path, _maker(node, project)]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _maker(node: Node, project: Project) -> str:
    """The LLM and prompt of an LLM kind, the licence of a source; never a URL or key of a connection."""
    if node.kind == "source":
        return node.spec.license or "no licence declared"
    connection = project.target.llms.get(getattr(node.spec, "llm", ""))
    if connection is None:
        return ""
    return f"{connection.model}, prompt `{node.spec.prompt}`"
