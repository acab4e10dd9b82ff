"""`contract: enforced`: a table has exactly the columns and types that its model declares."""

from __future__ import annotations

from bqbuild.core.errors import BuildError
from bqbuild.core.records import LINEAGE_COLUMNS, Node, Table


def check_contract(node: Node, table: Table) -> None:
    """Raises BuildError for a column that is missing, not declared, or of another type than declared."""
    if node.spec.contract != "enforced":
        return
    from bqbuild.store.types import yaml_type  # and Arrow, which a table without a contract can do without

    declared = {column.name: column.type for column in node.spec.columns}
    made = {column.name: column.type for column in table.columns if column.name not in LINEAGE_COLUMNS}
    problems = [f"`{name}` is missing" for name in declared if name not in made]
    problems += [f"`{name}` is not declared" for name in made if name not in declared]
    for name, type_ in declared.items():
        if type_ is not None and name in made and yaml_type(type_) != made[name]:
            problems.append(f"`{name}` is {made[name]}, not {yaml_type(type_)}")
    if problems:
        raise BuildError(
            f"`{node.name}` breaks its contract: {', '.join(problems)}",
            where=node.places.get("contract", node.where),
            hint="change `columns`, or what the model makes",
        )
