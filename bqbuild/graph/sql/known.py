"""The SQL of a node, analysed only where no finding says what came of it before."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from bqbuild.core.findings import Findings
from bqbuild.core.records import Node
from bqbuild.graph.sql.model import Schemas, SqlModel, analyse_node


class KnownSql:
    """What `SqlModel` tells of a node's SQL. All of it raises ProjectError where the SQL is none that a model may be:
    there is a finding only of what was not refused."""

    def __init__(self, node: Node, findings: Findings) -> None:
        self._node = node
        self._findings = findings

    @property
    def identity(self) -> str:
        """The canonical text of the query."""
        return str(self._find("sql: identity", None, lambda: self._model.identity))

    def output_columns(self, schemas: Schemas) -> list[str] | None:
        """The names of the columns that the query gives; None where they can't be told without running it."""
        found: list[str] | None = self._find(
            "sql: columns", _plain(schemas), lambda: self._model.output_columns(schemas)
        )
        return found

    def reads(self, schemas: Schemas) -> dict[str, frozenset[str] | None]:
        """The columns read of each input; None: all of them, or not to be told."""
        found: dict[str, list[str] | None] = self._find(
            "sql: reads",
            _plain(schemas),
            lambda: {
                name: None if columns is None else sorted(columns)
                for name, columns in self._model.reads(schemas).items()
            },
        )
        return {name: None if columns is None else frozenset(columns) for name, columns in found.items()}

    @cached_property
    def _model(self) -> SqlModel:
        return analyse_node(self._node)

    def _find(self, what: str, schemas: Any, analyse: Any) -> Any:
        node = self._node
        # all that analyse_node reads but for places, which only mistakes have
        read = [node.body, bool(node.spec.volatile), [str(ref) for ref in node.refs], schemas]
        return self._findings.find(what, read, analyse)


def _plain(schemas: Schemas) -> list[Any]:
    return [
        [name, None if columns is None else [[column.name, column.type] for column in columns]]
        for name, columns in schemas.items()
    ]
