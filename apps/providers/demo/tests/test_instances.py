"""Minimal instances of JSON schemas."""

from __future__ import annotations

from typing import Any

import jsonschema

from apps.providers.demo.instances import build_instance
from tests.support.cases import for_all


@for_all(
    "schema",
    [
        {"type": "integer", "minimum": 3, "multipleOf": 5},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "integer", "maximum": -4},
        {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{3}$"},
        {"type": "string", "minLength": 30, "maxLength": 31},
        {"type": "string", "maxLength": 1},
        {"enum": [None, 1]},
        {"const": {"a": 1}},
        {"type": ["null", "string"]},
        {"anyOf": [{"type": "string", "format": "uuid"}, {"type": "null"}]},
        {"allOf": [{"required": ["a"]}, {"properties": {"a": {"type": "boolean"}}}]},
        {"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True},
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "minItems": 2},
        {
            "$defs": {
                "node": {
                    "type": "object",
                    "properties": {
                        "value": {"type": "string"},
                        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    },
                    "required": ["value", "next"],
                }
            },
            "$ref": "#/$defs/node",
        },
        {"type": "object", "properties": {"again": {"$ref": "#"}}},
    ],
)
def test_an_instance_fits_its_schema(schema: dict[str, Any]) -> None:
    instance = build_instance(schema)

    jsonschema.Draft202012Validator(schema).validate(instance)
