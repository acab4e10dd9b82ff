"""SQL models, understood before they run: safety, identity, columns read, row ids. Pure: DuckDB is not needed here."""

from __future__ import annotations

from bqbuild.graph.sql.known import KnownSql
from bqbuild.graph.sql.model import CompiledSql, SqlModel, analyse_node, analyse_sql
from bqbuild.graph.sql.parsing import body_place, place_in

__all__ = ["CompiledSql", "KnownSql", "SqlModel", "analyse_node", "analyse_sql", "body_place", "place_in"]
