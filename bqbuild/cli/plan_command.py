"""`bqbuild plan`: what a run would do, why, and what it can cost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from bqbuild.cli.output import print_json, safe
from bqbuild.cli.selection import chosen_models, sample_option, selection_options
from bqbuild.cli.settings import Settings, command
from bqbuild.cli.why import why_lines

if TYPE_CHECKING:
    from bqbuild.plan.changes import Reason
    from bqbuild.plan.plan import Amount, Plan, Step
    from bqbuild.plan.why import Why

STYLES = {"build": "green", "maybe": "yellow", "cached": "bright_black"}


@command("plan")
@click.argument("models", nargs=-1)
@selection_options
@click.option("--fast", is_flag=True, help="Build nothing to look further: bounds instead of figures.")
@click.option("--full-refresh", "-f", is_flag=True, help="As `run --full-refresh` would.")
@click.option("--refresh-calls", is_flag=True, help="As `run --refresh-calls` would: what paying again costs.")
@sample_option
@click.option("--why", "is_why", is_flag=True, help="Take the keys of models apart: every component, then and now.")
@click.option("--all", "show_all", is_flag=True, help="Show models that are up to date as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--markdown", is_flag=True, help="Print a table for a pull request.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 where there is something to do, else with 0.")
def plan_command(
    settings: Settings,
    models: Sequence[str],
    selected: Sequence[str],
    exclude: Sequence[str],
    sample: int | None,
    exit_code: bool,
    **given: bool,
) -> int:
    """Say what `run` would do with MODELS (as --select), why, and what it can cost. Sends and publishes nothing.

    Free nodes (SQL, filters without judges …) above the first paid ones are built, so that the calls of these are
    counted exactly; what is below them is bounded. --fast builds nothing.
    """
    how = {key: given[key] for key in ("fast", "full_refresh", "refresh_calls")}
    selection = ([*models, *selected], exclude)
    is_plain = not (given["is_why"] or how["full_refresh"] or how["refresh_calls"])
    made = _unchanged(settings, selection, sample) if is_plain else None
    if made is not None:
        _print(settings, made, (), given)
        return 0
    from bqbuild.run.artifacts import write_plan
    from bqbuild.run.planning import plan_and_why

    with settings.open(sample=sample) as session:
        names = chosen_models(settings, session, *selection)
        made, why = plan_and_why(session, names, warn=settings.warn, **how)
        write_plan(session, made)
        told = [why[step.name]() for step in made.steps if step.name in names] if given["is_why"] else []
    _print(settings, made, told, given)
    return 1 if exit_code and not made.is_empty else 0


def _print(settings: Settings, plan: Plan, told: Sequence[Why], given: Mapping[str, bool]) -> None:
    if given["as_json"]:
        keys = {"environment": plan.environment, "nodes": [why.json() for why in told]}
        print_json(keys if given["is_why"] else plan.json())
        return
    if given["is_why"]:
        lines = [line for number, why in enumerate(told) for line in (*[""] * bool(number), *why_lines(why))]
    else:
        lines = list(_markdown(plan) if given["markdown"] else _text(plan, given["show_all"]))
    for line in lines:
        click.echo(line, color=settings.color())


def _unchanged(settings: Settings, selection: tuple[Sequence[str], Sequence[str]], sample: int | None) -> Plan | None:
    """The plan where nothing has changed, for which the project is not even read; None where something has, or may
    have. Warns of what there is to warn of in the first case alone."""
    view = settings.outline(sample=sample)
    if view is None:
        return None
    from bqbuild.run.artifacts import write_plan
    from bqbuild.run.unchanged import plan_unchanged

    with view:
        made = plan_unchanged(view, chosen_models(replace(settings, quiet=True), view, *selection), warn=settings.warn)
        if made is not None:
            settings.tell_warnings(view)
            chosen_models(settings, view, *selection)
            write_plan(view, made)
        return made


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
    if unbound := _unbound(plan):
        yield click.style(unbound, dim=True)


def _unbound(plan: Plan) -> str:
    """Why tokens and cost have no bound, and what gives them one; empty where they have."""
    names = [
        f"`{step.name}`"
        for step in plan.steps
        if step.action != "cached" and step.new_calls.value and step.output_tokens.value is None
    ]
    if not names:
        return ""
    have = "has" if len(names) == 1 else "have"
    return f"? and $?: {', '.join(names)} {have} no `max_tokens`; set it in `params` to bound tokens and cost"


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
        why = "<br>".join(_in_markdown(_reason(reason)) for reason in step.reasons)
        figures = ["", "", ""]
        if step.new_calls.value != 0:
            tokens = f"{_amount(step.input_tokens)} → {_amount(step.output_tokens)}"
            figures = [_amount(step.new_calls), tokens, _money(step.cost)]
        yield f"| `{step.name}` | {step.kind} | {step.action} | {' | '.join([_amount(step.rows), *figures])} | {why} |"
    if unbound := _unbound(plan):
        yield ""
        yield _in_markdown(unbound)


def _in_markdown(text: str) -> str:
    """Text in a cell of a table: what is between backticks stays code; nothing else in it is markup."""
    pieces = text.replace("\n", " ").split("`")
    if len(pieces) % 2 == 0:  # a backtick too many: nothing is code
        pieces = ["&#96;".join(pieces)]
    for number in range(0, len(pieces), 2):
        plain = pieces[number].replace("&", "&amp;").replace("&amp;#96;", "&#96;").replace("<", "&lt;")
        pieces[number] = re.sub(r"([\\*_\[\]!#~])", r"\\\1", plain.replace("&#96;", "\0")).replace("@", "&#64;")
        pieces[number] = pieces[number].replace("\0", "&#96;")
    return "`".join(pieces).replace("|", "\\|")
