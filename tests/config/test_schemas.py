"""JSON Schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bqbuild.config.schemas import json_schemas
from bqbuild.config.specs import SPECS
from bqbuild.config.validate import keys_of


def test_every_file_has_a_schema_that_refuses_unknown_keys() -> None:
    schemas = json_schemas()
    assert set(schemas) == {"bqbuild.yml", "profiles.yml", "models.yml", "prompt.md"}
    for schema in schemas.values():
        assert schema["additionalProperties"] is False
        json.dumps(schema)


def test_every_key_of_every_kind_is_in_the_schema() -> None:
    definitions = json_schemas()["models.yml"]["$defs"]
    for spec in SPECS.values():
        assert set(definitions[spec.__name__]["properties"]) == set(keys_of(spec))


def test_every_reference_leads_somewhere() -> None:
    for schema in json_schemas().values():
        for target in references(schema):
            found: Any = schema
            for step in target.removeprefix("#/").split("/"):
                found = found[step]


def test_short_spellings_are_allowed() -> None:
    definitions = json_schemas()["models.yml"]["$defs"]
    columns = definitions["OutputSpec"]["properties"]["columns"]
    assert {"type": "string"} in columns["additionalProperties"]["anyOf"]
    tags = definitions["MixSpec"]["properties"]["tags"]
    assert {"type": "string"} in tags["anyOf"]
    rows = definitions["MixSpec"]["properties"]["rows"]
    assert any("pattern" in each for each in flat(rows))


def references(schema: Any) -> Iterator[str]:
    for each in flat(schema):
        if isinstance(each.get("$ref"), str):
            yield each["$ref"]


def flat(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from flat(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from flat(value)
