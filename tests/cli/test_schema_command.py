from __future__ import annotations

import json
from pathlib import Path

from bqbuild import __version__
from tests.cli.conftest import Bqbuild


def test_all_schemas_come_in_one_object(bqbuild: Bqbuild) -> None:
    schemas = bqbuild("schema").json()
    assert set(schemas) == {"bqbuild.yml", "profiles.yml", "models.yml", "prompt.md"}
    assert bqbuild("schema", "models.yml").json() == schemas["models.yml"]


def test_schemas_can_be_written_for_an_editor(bqbuild: Bqbuild, tmp_path: Path) -> None:
    assert bqbuild("schema", "--output-dir", str(tmp_path / "schemas")).code == 0
    written = {path.name for path in (tmp_path / "schemas").iterdir()}
    assert written == {"bqbuild.schema.json", "profiles.schema.json", "models.schema.json", "prompt.schema.json"}
    assert json.loads((tmp_path / "schemas/models.schema.json").read_text("utf-8"))["type"] == "object"


def test_version_tells_what_a_bug_report_needs(bqbuild: Bqbuild) -> None:
    assert bqbuild("version").out == f"{__version__}\n"
    assert bqbuild("version", "--json").json()["packages"]["duckdb"]
