"""SQL models, understood before they run: safety, identity, columns read, row ids. Pure: DuckDB is not needed here."""

from __future__ import annotations

from bqbuild.graph.sql.model import CompiledSql, SqlModel, analyse_sql

__all__ = ["CompiledSql", "SqlModel", "analyse_sql"]
