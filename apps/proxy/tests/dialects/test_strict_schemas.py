"""To which schemas a model is held."""

from typing import Any

import pytest

from apps.proxy.dialects.strict_schemas import closed, for_claude, is_strict

TEXT = {"type": "string"}


def made(**members: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, **members}


@pytest.mark.parametrize(
    "schema",
    [
        TEXT,
        made(),
        made(properties={"a": TEXT}, required=["a"]),
        made(properties={"a": {"type": ["string", "null"]}}, required=["a"]),
        made(properties={"a": {"type": "array", "items": made()}}, required=["a"]),
        made(properties={"required": TEXT, "type": TEXT}, required=["type", "required"]),
    ],
)
def test_openai_is_held_to_what_lists_all_properties_and_has_no_others(
    schema: dict[str, Any],
) -> None:
    assert is_strict(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": TEXT}, "required": ["a"]},
        {"type": ["object", "null"], "properties": {}},
        made(properties={"a": TEXT}),
        made(properties={"a": TEXT}, required=["b"]),
        made(properties={"a": TEXT}, required=5),
        made(properties=[TEXT], required=[]),
        made(additionalProperties=TEXT),
        {"type": "array", "items": {"type": "object"}},
        {"anyOf": [TEXT, {"type": "object"}]},
        made(properties={}, **{"$defs": {"a": {"type": "object"}}}),
    ],
)
def test_openai_is_not_held_to_another_schema(schema: dict[str, Any]) -> None:
    assert not is_strict(schema)


def test_a_property_is_no_bound_and_no_member_whatever_its_name() -> None:
    properties = {"minimum": {"type": "integer", "minimum": 1}, "properties": TEXT, "type": TEXT}

    assert for_claude({"type": "object", "properties": properties}) == made(
        properties={**properties, "minimum": {"type": "integer", "description": "{minimum: 1}"}}
    )


@pytest.mark.parametrize("count", [0, 1])
def test_anthropic_knows_that_there_is_at_least_one(count: int) -> None:
    schema = {"type": "array", "items": TEXT, "minItems": count}

    assert for_claude(schema) == schema


def test_more_than_one_is_told_in_words() -> None:
    schema = {"type": "array", "items": TEXT, "description": "Names.", "minItems": 2}

    assert for_claude(schema) == {
        "type": "array",
        "items": TEXT,
        "description": "Names.\n\n{minItems: 2}",
    }


@pytest.mark.parametrize("schema", [{"type": "object"}, made(additionalProperties=TEXT)])
def test_anthropic_is_not_held_to_an_object_of_any_properties(schema: dict[str, Any]) -> None:
    assert for_claude({"type": "array", "items": schema}) is None


def test_what_is_open_on_purpose_stays_open() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": True}

    assert closed(schema) == schema
