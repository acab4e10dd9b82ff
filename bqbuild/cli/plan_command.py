"""`bqbuild plan`: what a run would do, why, and what it can cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from bqbuild.cli.output import print_json, safe
from bqbuild.cli.selection import chosen_models, sample_option, selection_options
from bqbuild.cli.settings import Settings, command

if TYPE_CHECKING:
    from bqbuild.plan.changes import Reason
    from bqbuild.plan.plan import Amount, Plan, Step

STYLES = {"build": "green", "maybe": "yellow", "cached": "bright_black"}


@command("plan")
@selection_options
@click.option("--fast", is_flag=True, help="Build nothing to look further: bounds instead of figures.")
@click.option("--full-refresh", "-f", is_flag=True, help="As `run --full-refresh` would.")
@click.option("--refresh-calls", is_flag=True, help="As `run --refresh-calls` would: what paying again costs.")
@sample_option
@click.option("--all", "show_all", is_flag=True, help="Show models that are up to date as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--markdown", is_flag=True, help="Print a table for a pull request.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 where there is something to do.")
def plan_command(
    settings: Settings,
    selected: Sequence[str],
    exclude: Sequence[str],
    show_all: bool,
    as_json: bool,
    markdown: bool,
    exit_code: bool,
    sample: int | None,
    **how: bool,
) -> int:
    """Say what `run` would do, why, and what it can cost. Nothing is sent to an LLM and nothing is published.

    Free nodes (SQL, filters without judges …) above the first paid ones are built, so that the calls of these are
    counted exactly; what is below them is bounded. --fast builds nothing.
    """
    from bqbuild.run.artifacts import write_plan
    from bqbuild.run.planning import plan

    with settings.open(sample=sample) as session:
        made = plan(session, chosen_models(settings, session, selected, exclude), **how)
        write_plan(session, made)
    if as_json:
        print_json(made.json())
    else:
        for line in _markdown(made) if markdown else _text(made, show_all):
            click.echo(line, color=settings.color())
    return 1 if exit_code and not made.is_empty else 0


def _text(plan: Plan, show_all: bool) -> Iterator[str]:
    if plan.is_empty and not show_all:
        yield _nothing(plan)
        return
    for step in plan.steps:
        if step.action == "cached" and not show_all:
            continue
        action = click.style(f"{step.action:<6}", fg=STYLES[step.action])
        yield f"{action} {step.name:<24} {click.style(f'{step.kind:<11}', dim=True)} {' · '.join(_figures(step))}"
        if step.action != "cached":
            yield from (f"       {click.style(_reason(reason), dim=True)}" for reason in step.reasons)
    yield _totals(plan)


def _nothing(plan: Plan) -> str:
    models = len(plan.steps)
    return f"Nothing to do: {models} {'model is' if models == 1 else 'models are'} up to date."


def _reason(reason: Reason) -> str:
    text = safe(reason.message)
    return f"{text} ({reason.where})" if reason.where else text


def _figures(step: Step) -> list[str]:
    parts = [f"{_amount(step.rows)} rows"]
    return parts + _spending(step.new_calls, step.cached_calls, step.input_tokens, step.output_tokens, step.cost)


def _spending(new: Amount, cached: Amount, tokens_in: Amount, tokens_out: Amount, cost: Amount) -> list[str]:
    """Calls, tokens and dollars; nothing of what cannot be."""
    parts = []
    if new.value != 0:
        parts.append(f"{_amount(new)} new calls")
    if cached.value != 0 and not (cached.is_bound and new.is_bound):
        parts.append(f"{_amount(cached)} cached")
    if new.value != 0:
        parts.append(f"{_amount(tokens_in)} → {_amount(tokens_out)} tokens")
    if cost.value != 0:
        parts.append(_money(cost))
    return parts


def _amount(amount: Amount) -> str:
    if amount.value is None:
        return "?"
    return f"≤ {amount.value:,.0f}" if amount.is_bound else f"{amount.value:,.0f}"


def _money(amount: Amount) -> str:
    if amount.value is None:
        return "$?"
    return f"{'≤ ' if amount.is_bound else ''}${amount.value:,.4f}"


def _totals(plan: Plan) -> str:
    actions = [step.action for step in plan.steps]
    counted = ", ".join(f"{number} {action}" for action in STYLES if (number := actions.count(action)))
    return " · ".join([counted or "nothing is selected", *_spending(*plan.sums())])


def _markdown(plan: Plan) -> Iterator[str]:
    if plan.is_empty:
        yield f"**{_nothing(plan)}**"
        return
    yield f"**{_totals(plan)}**"
    yield ""
    yield "| model | kind | action | rows | new calls | tokens | cost | why |"
    yield "|---|---|---|--:|--:|--:|--:|---|"
    for step in plan.steps:
        if step.action == "cached":
            continue
        why = "<br>".join(_reason(reason).replace("|", "\\|") for reason in step.reasons)
        tokens = f"{_amount(step.input_tokens)} → {_amount(step.output_tokens)}"
        figures = [_amount(step.rows), _amount(step.new_calls), tokens, _money(step.cost)]
        yield f"| `{step.name}` | {step.kind} | {step.action} | {' | '.join(figures)} | {why} |"
