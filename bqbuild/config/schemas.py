"""JSON Schemas of the files that users write, for editors: made from the specs, so that they cannot drift."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from bqbuild.config.specs import SPECS, ProfilesSpec, ProjectSpec, PromptFrontMatter, Spec

_DIALECT = GenerateJsonSchema.schema_dialect
_TEMPLATE = {"type": "string", "pattern": r"\{\{|\{%"}


def json_schemas() -> dict[str, dict[str, Any]]:
    """The schemas by the file that they are for: `bqbuild.yml`, `profiles.yml`, `models.yml`, `prompt.md`."""
    return {
        "bqbuild.yml": _file(ProjectSpec, "bqbuild: project/bqbuild.yml"),
        "profiles.yml": _file(ProfilesSpec, "bqbuild: project/profiles.yml"),
        "models.yml": _models(),
        "prompt.md": _file(PromptFrontMatter, "bqbuild: front matter of prompts/**/*.md"),
    }


def _file(spec_class: type[Spec], title: str) -> dict[str, Any]:
    return {"$schema": _DIALECT, **_loosened(spec_class.model_json_schema(by_alias=True)), "title": title}


def _models() -> dict[str, Any]:
    """A file of models: each item is checked by the schema of its kind."""
    definitions: dict[str, Any] = {}
    branches = []
    for kind, spec_class in SPECS.items():
        schema = _loosened(spec_class.model_json_schema(by_alias=True, ref_template="#/$defs/{model}"))
        definitions.update(schema.pop("$defs", {}))
        definitions[spec_class.__name__] = schema
        if kind != "source":
            branches.append(_branch(kind, spec_class.__name__))
    kinds = [kind for kind in SPECS if kind != "source"]
    definitions["Model"] = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "kind": {"enum": kinds}},
        "allOf": branches,
    }
    definitions["SqlSpec"]["required"] = ["name"]  # the SQL may stand in a file of its own
    return {
        "$schema": _DIALECT,
        "title": "bqbuild: models/**/*.yml",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "sources": {"type": "array", "items": {"$ref": "#/$defs/SourceSpec"}},
            "models": {"type": "array", "items": {"$ref": "#/$defs/Model"}},
        },
        "$defs": definitions,
    }


def _branch(kind: str, name: str) -> dict[str, Any]:
    """A model without a kind is SQL."""
    needs_kind = [] if kind == "sql" else ["kind"]
    condition = {"properties": {"kind": {"const": kind}}, "required": needs_kind}
    return {"if": condition, "then": {"$ref": f"#/$defs/{name}"}}


def _loosened(schema: Any) -> Any:
    """The schema with a template allowed where a number or a boolean is: it is rendered before it is checked."""
    if isinstance(schema, list):
        takes_text = any(isinstance(item, dict) and item.get("type") == "string" for item in schema)
        return schema if takes_text else [_loosened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    loose = {key: _each(value) if key in ("properties", "$defs") else _loosened(value) for key, value in schema.items()}
    if loose.get("type") in ("integer", "number", "boolean"):
        about = {key: loose.pop(key) for key in ("title", "default", "description") if key in loose}
        return {**about, "anyOf": [loose, _TEMPLATE]}
    return loose


def _each(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: _loosened(value) for name, value in properties.items()}
