"""The cells of a `matrix`, with the `include` and `exclude` of GitHub Actions.

Semantics: https://docs.github.com/actions/using-jobs/using-a-matrix-for-your-jobs
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

Cell = dict[str, Any]


def expand_matrix(matrix: Mapping[str, list[Any]]) -> list[Cell]:
    """The cells, in the order written; one empty cell where there is no matrix."""
    axes = {key: values for key, values in matrix.items() if key not in ("include", "exclude")}
    excluded = matrix.get("exclude", [])
    originals = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())] if axes else []
    originals = [cell for cell in originals if not any(_matches(cell, pattern) for pattern in excluded)]
    cells = [dict(cell) for cell in originals]
    added: list[Cell] = []
    for extra in matrix.get("include", []):
        fitting = [
            cell
            for cell, original in zip(cells, originals, strict=True)
            if all(original[key] == value for key, value in extra.items() if key in original)
        ]
        for cell in fitting:
            cell.update(extra)
        if not fitting:
            added.append(dict(extra))
    return cells + added or [{}]


def matrix_columns(matrix: Mapping[str, list[Any]]) -> dict[str, str]:
    """The columns that a matrix makes, in order of appearance, with their types as `output.columns` spells them."""
    cells = expand_matrix(matrix)
    keys = list(dict.fromkeys(key for cell in cells for key in cell))
    return {key: _type([cell[key] for cell in cells if cell.get(key) is not None]) for key in keys}


def _matches(cell: Cell, pattern: Mapping[str, Any]) -> bool:
    return all(key in cell and cell[key] == value for key, value in pattern.items())


def _type(values: list[Any]) -> str:
    if values and all(isinstance(value, bool) for value in values):
        return "boolean"
    if values and all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return "bigint"
    if values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return "double"
    return "varchar"
