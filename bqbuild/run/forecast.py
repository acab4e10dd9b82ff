"""What a node's calls will be: exact where its input is known, a bound where only a bound can be known.

A bound holds as long as SQL in between does not make text longer than all columns of its inputs together, and no
reply has to be asked for twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bqbuild.config.project import Project
from bqbuild.config.specs import JudgeRule
from bqbuild.core.hashing import canonical_json
from bqbuild.core.records import Node
from bqbuild.graph.matrix import expand_matrix, matrix_columns
from bqbuild.nodes.conversation import open_conversation
from bqbuild.plan.bounds import (
    TOKENS_PER_MESSAGE,
    most_output_tokens,
)
from bqbuild.plan.plan import NOTHING, UNKNOWN, Amount
from bqbuild.run.replay import Replay

Widths = Mapping[str, float | None]
"""The most tokens that a value of each column can be; None where that is not known."""


MATRIX_WIDTH = 512
"""Tokens that a matrix value is taken to be at most; they are short labels and roles."""


@dataclass(slots=True)
class Expected:
    """What a node is expected to make and to use."""

    rows: Amount = UNKNOWN
    new_calls: Amount = NOTHING
    cached_calls: Amount = NOTHING
    input_tokens: Amount = NOTHING
    output_tokens: Amount = NOTHING
    cost: Amount = NOTHING
    widths: Widths = field(default_factory=dict)


def forecast_rows(node: Node, project: Project, found: Replay) -> Expected:
    """The calls of a node whose input is known, from a replay of it. Exact but for what depends on new answers: the
    later rounds of a refinement, and asking again."""
    spec = node.spec
    rounds = (getattr(spec, "rounds", 1) - 1) * found.stalled
    limit = most_output_tokens(_params(node, project))
    new = found.new
    later_in = None if limit is None else limit * len(spec.output.columns)
    tokens_in = Amount(found.input_tokens, bool(new))
    if rounds:
        # a later round quotes what the one before it wrote
        each = found.input_tokens / max(new, 1)
        tokens_in = UNKNOWN if later_in is None else Amount(found.input_tokens + rounds * (each + later_in), True)
    expected = Expected(
        rows=Amount(found.rows) if not found.stalled else _rows(node, Amount(found.tasks)),
        new_calls=Amount(new + rounds, bool(rounds)),
        cached_calls=Amount(found.cached),
        input_tokens=tokens_in,
        output_tokens=UNKNOWN
        if new and limit is None
        else Amount(found.output_tokens + rounds * (limit or 0), bool(new)),
    )
    price = project.target.llms[spec.llm].rates
    expected.cost = _cost(expected, price.input, price.output)
    return expected


def bound_rows(node: Node, project: Project, rows: Amount, widths: Widths) -> Expected:
    """The most that the calls of a node can be when its input is not built yet."""
    spec = node.spec
    draws = spec.pass_rate.samples if getattr(spec, "pass_rate", None) else getattr(spec, "votes", 1)
    tasks = rows.times(len(expand_matrix(getattr(spec, "matrix", {}))) * getattr(spec, "samples", 1))
    return _bound(node, project, spec.llm, spec.prompt, tasks, draws * getattr(spec, "rounds", 1), widths)


def forecast_judge(judge: JudgeRule, project: Project, found: Replay) -> Expected:
    """The calls of a judge whose rows are known, from a replay of them."""
    limit = most_output_tokens(_judge_params(judge, project))
    is_bound = found.new > 0
    expected = Expected(
        new_calls=Amount(found.new),
        cached_calls=Amount(found.cached),
        input_tokens=Amount(found.input_tokens, is_bound),
        output_tokens=UNKNOWN if is_bound and limit is None else Amount(found.output_tokens, is_bound),
    )
    price = project.target.llms[judge.llm].rates
    expected.cost = _cost(expected, price.input, price.output)
    return expected


def bound_judge(node: Node, judge: JudgeRule, project: Project, rows: Amount, widths: Widths) -> Expected:
    """The most that a judge of a filter can use."""
    return _bound(node, project, judge.llm, judge.prompt, rows, 1, widths, _judge_params(judge, project))


def _bound(
    node: Node,
    project: Project,
    llm: str,
    prompt: str,
    tasks: Amount,
    calls_each: int,
    widths: Widths,
    params: Mapping[str, object] | None = None,
) -> Expected:
    price = project.target.llms[llm].rates
    calls = tasks.times(calls_each)
    template = project.prompts[prompt]
    matrix = matrix_columns(getattr(node.spec, "matrix", {}))
    read = [MATRIX_WIDTH if name in matrix else widths.get(name) for name in template.columns]
    fixed = len(canonical_json(template.identity).encode()) + TOKENS_PER_MESSAGE * 8
    per_call = None if any(width is None for width in read) else fixed + sum(width or 0 for width in read)
    most_out = most_output_tokens(_params(node, project) if params is None else params)
    expected = Expected(
        rows=_rows(node, tasks),
        new_calls=calls,
        cached_calls=calls,
        input_tokens=calls.times(per_call),
        output_tokens=calls.times(most_out),
    )
    expected.cost = _cost(expected, price.input, price.output)
    return expected


def _cost(expected: Expected, price_in: float, price_out: float) -> Amount:
    """Free tokens cost nothing, however many they are."""
    if not price_in and not price_out:
        return NOTHING
    if expected.input_tokens.value is None or expected.output_tokens.value is None:
        return UNKNOWN
    value = (expected.input_tokens.value * price_in + expected.output_tokens.value * price_out) / 1e6
    return Amount(round(value, 6), bool(value))


def _judge_params(judge: JudgeRule, project: Project) -> Mapping[str, object]:
    return open_conversation(project, judge).params


def _params(node: Node, project: Project) -> Mapping[str, object]:
    return open_conversation(project, node.spec).params


def _rows(node: Node, tasks: Amount) -> Amount:
    if node.kind != "synthesize":
        return Amount(tasks.value, bool(tasks.value))
    items = (node.spec.output.max_items if node.spec.output.explode else 1) or None
    return tasks.times(items)
