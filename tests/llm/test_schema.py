"""Schemas of outputs, and their descriptions for a re-ask."""

from __future__ import annotations

from bqbuild.config.specs import OutputSpec
from bqbuild.core.records import ChatReply, Constraint
from bqbuild.llm.parsing import parse_reply
from bqbuild.llm.schema import constraint_for, described, json_schema

OUTPUT = OutputSpec.model_validate(
    {
        "format": "json",
        "columns": {
            "question": {"type": "string", "description": "a question"},
            "level": {"scale": [1, 3]},
            "field": {"values": ["math", "physics"]},
            "tags": "list<string>",
            "score": "float",
            "sure": "bool",
            "extra": "json",
        },
    }
)


def test_a_schema_names_every_column_its_type_and_its_labels() -> None:
    assert json_schema(OUTPUT) == {
        "type": "object",
        "properties": {
            "question": {"type": "string"},
            "level": {"type": "integer", "enum": [1, 2, 3]},
            "field": {"type": "string", "enum": ["math", "physics"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "score": {"type": "number"},
            "sure": {"type": "boolean"},
            "extra": {},
        },
        "required": ["extra", "field", "level", "question", "score", "sure", "tags"],
        "additionalProperties": False,
    }


def test_descriptions_are_no_part_of_a_schema_because_they_may_change_freely() -> None:
    columns = {**OUTPUT.columns, "question": OUTPUT.columns["question"].model_copy(update={"description": "new"})}
    assert json_schema(OUTPUT.model_copy(update={"columns": columns})) == json_schema(OUTPUT)


def test_an_exploding_schema_is_an_object_with_a_list_and_its_replies_are_read() -> None:
    output = OutputSpec.model_validate({"format": "json", "explode": True, "max_items": 4, "columns": {"q": "string"}})
    schema = json_schema(output)
    assert schema["properties"]["items"]["maxItems"] == 4
    assert schema["properties"]["items"]["items"]["required"] == ["q"]
    assert parse_reply(ChatReply('{"items": [{"q": "a"}]}'), output).items == [{"q": "a"}]


def test_constraints_exist_for_json_and_choices_only() -> None:
    columns = {"c": {"values": ["a", "b"]}}
    choice = OutputSpec.model_validate({"format": "choice", "columns": columns})
    assert constraint_for(choice) == Constraint(choices=("a", "b"))
    assert constraint_for(OUTPUT) == Constraint(json_schema=json_schema(OUTPUT))
    assert constraint_for(OutputSpec.model_validate({"format": "text", "columns": {"c": "string"}})) is None
    assert constraint_for(OutputSpec.model_validate({"format": "tags", "columns": {"c": "string"}})) is None


def test_what_is_wanted_is_described_for_each_format() -> None:
    def say(**spec: object) -> str:
        return described(OutputSpec.model_validate(spec))

    assert say(format="choice", columns={"c": {"values": ["a", "b"]}}) == "exactly one of: a, b"
    assert say(format="tags", columns={"q": "string"}) == "<q>...</q>"
    assert say(format="text", columns={"q": "int"}) == "only the q (integer)"
    assert say(format="json", explode=True, columns={"q": "list<int>"}) == (
        "a JSON list of objects with the keys q (list of integer)"
    )
