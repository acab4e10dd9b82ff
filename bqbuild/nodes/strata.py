"""The strata of a mix: what names one, and what it weighs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from bqbuild.config.specs import WeightRow
from bqbuild.core.errors import BuildError, Where

Stratum = tuple[str | None, ...]
"""The values of the `by` columns, as text; None for NULL."""


def stratum_value(value: object) -> str | None:
    """A value as it names a stratum: 3, 3.0 and "3" are one, so that a weight finds its rows whatever their type."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | dict):
        return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return str(value)


def in_order(strata: Iterable[Stratum]) -> list[Stratum]:
    """Strata sorted by their values, NULL first."""
    return sorted(strata, key=lambda stratum: [(value is not None, value or "") for value in stratum])


def shown(by: Sequence[str], stratum: Stratum) -> str:
    """A stratum for a reader: `discipline=physics, difficulty=3`."""
    return ", ".join(f"{name}={'NULL' if value is None else value}" for name, value in zip(by, stratum, strict=True))


def given_weights(
    rows: Sequence[WeightRow], by: Sequence[str], where: Where
) -> list[tuple[dict[int, str | None], float]]:
    """Declared weights, by the place of a column in `by`. Raises BuildError for a column that is not in it."""
    weights = []
    for row in rows:
        unknown = [name for name in row.when if name not in by]
        if unknown:
            raise BuildError(
                f"a weight is given `when` `{unknown[0]}`, which the mix is not stratified by",
                where=where,
                hint=f"add it to `by`, which is [{', '.join(by)}]",
            )
        weights.append(({by.index(name): stratum_value(value) for name, value in row.when.items()}, row.weight))
    return weights


def weight_of(stratum: Stratum, weights: Sequence[tuple[Mapping[int, str | None], float]]) -> float:
    """The first weight whose values are the stratum's; 1 where none is given."""
    for when, weight in weights:
        if all(stratum[place] == value for place, value in when.items()):
            return weight
    return 1.0


def read_weights(
    rows: Iterable[tuple[Stratum, object]], by: Sequence[str], model: str, where: Where
) -> dict[Stratum, float]:
    """Weights from the rows of another model. Raises BuildError for what is no weight, and for two of one stratum."""
    weights: dict[Stratum, float] = {}
    for stratum, value in rows:
        place = shown(by, stratum) or "all rows"
        if isinstance(value, bool) or not _is_weight(value):
            raise BuildError(
                f"`{model}` gives {place} the weight {'NULL' if value is None else value}",
                where=where,
                hint="a weight is a number that is not negative",
            )
        if stratum in weights:
            raise BuildError(
                f"`{model}` gives {place} two weights", where=where, hint=f"group it by {', '.join(by) or 'nothing'}"
            )
        weights[stratum] = float(str(value))
    return weights


def _is_weight(value: object) -> bool:
    try:
        number = float(str(value))
    except ValueError:
        return False
    return math.isfinite(number) and number >= 0
