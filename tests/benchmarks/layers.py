"""A layered graph of SQL models, as a bqbuild project and as a dbt project with the same models.

Layer 0 is five models over the source; of these the first, `m_0_0`, is the root that is edited. Every model below reads
one or two models of the layer above, so that most of the graph hangs on the root.
"""

from __future__ import annotations

import random
from pathlib import Path

ROOT = "m_0_0"
WIDTH = 20
COLUMNS = ("id", "a", "b", "c")


def layers(size: int) -> dict[str, list[str]]:
    """`size` models, each with its parents; the same for every call. A fifth of them does not hang on the root."""
    chance = random.Random(7)
    above: list[str] = []
    models: dict[str, list[str]] = {}
    for number in range(5):
        models[f"m_0_{number}"] = []
        above.append(f"m_0_{number}")
    layer = 0
    below = {ROOT}
    while len(models) < size:
        layer += 1
        row = []
        for number in range(min(WIDTH, size - len(models))):
            name = f"m_{layer}_{number}"
            apart = number % 5 == 4
            pool = [each for each in above if (each in below) != apart] or above
            parents = chance.sample(pool, min(len(pool), 1 + number % 2))
            models[name] = parents
            if below & set(parents):
                below.add(name)
            row.append(name)
        above = row
    return models


def leaf(models: dict[str, list[str]]) -> str:
    """The last model: nobody reads it."""
    return list(models)[-1]


def write_bqbuild(root: Path, models: dict[str, list[str]]) -> None:
    """The project as bqbuild reads it."""
    _write(root / "project/bqbuild.yml", "name: layers\nversion: 1\n")
    _write(root / "project/profiles.yml", "default: dev\ntargets: {dev: {store: .bqbuild}}\n")
    _write(root / "project/sources/rows.csv", _rows())
    _write(root / "models/sources.yml", "sources: [{name: rows, path: sources/rows.csv, key: [id]}]\n")
    for name, parents in models.items():
        refs = [f"{{{{ ref('{parent}') }}}}" for parent in parents] or ["{{ source('rows') }}"]
        _write(model_path(root, name), _select(refs))


def write_dbt(root: Path, models: dict[str, list[str]]) -> None:
    """The same models as dbt reads them; the source is a seed."""
    _write(
        root / "dbt_project.yml",
        "name: layers\nversion: '1.0.0'\nprofile: layers\nmodels: {layers: {+materialized: table}}\n",
    )
    _write(
        root / "profiles.yml",
        "layers: {target: dev, outputs: {dev: {type: duckdb, path: layers.duckdb, threads: 2}}}\n",
    )
    _write(root / "seeds/rows.csv", _rows())
    for name, parents in models.items():
        refs = [f"{{{{ ref('{parent}') }}}}" for parent in parents or ["rows"]]
        _write(model_path(root, name), _select(refs))


def model_path(root: Path, name: str) -> Path:
    """Where a model is written, in folders by layer."""
    return root / "models" / f"layer_{name.split('_')[1]}" / f"{name}.sql"


def _select(refs: list[str]) -> str:
    """Columns by name; `c` of the root is read by nobody."""
    lines = [
        "-- one of the models of a benchmark",
        "select",
        "    x.id,",
        "    x.a + 1 as a,",
        "    x.b || '.' as b,",
        "    x.a * 2 as c",
    ]
    lines.append(f"from {refs[0]} as x")
    lines += [f"join {ref} as y using (id)" for ref in refs[1:]]
    lines.append("where x.a >= 0")
    return "\n".join(lines) + "\n"


def _rows() -> str:
    return "id,a,b\n" + "".join(f"{number},{number * 7},word{number}\n" for number in range(100))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
