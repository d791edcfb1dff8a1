"""Schemas in Google's own form, as JSON Schema.

Theirs are those of OpenAPI 3.0: types in capitals, `nullable` beside them, bounds as strings, and
an order of the properties. Writers need no way back: Google takes JSON Schema under another name
(`parametersJsonSchema`, `responseJsonSchema`).

Source: https://ai.google.dev/api/caching#Schema
"""

from collections.abc import Mapping
from typing import Any, Final

# Members that hold schemas, by what they hold them in.
_SINGLE: Final = ("items", "additionalProperties")
_LISTS: Final = ("anyOf", "prefixItems")
_NAMED: Final = ("properties", "$defs", "defs")
_BOUNDS: Final = (
    "maxItems",
    "maxLength",
    "maxProperties",
    "minItems",
    "minLength",
    "minProperties",
)
# The other spelling of each; names of properties are no members and stay.
_SPELLINGS: Final = {
    "additional_properties": "additionalProperties",
    "any_of": "anyOf",
    "max_items": "maxItems",
    "max_length": "maxLength",
    "max_properties": "maxProperties",
    "min_items": "minItems",
    "min_length": "minLength",
    "min_properties": "minProperties",
    "prefix_items": "prefixItems",
    "property_ordering": "propertyOrdering",
}
_UNSPECIFIED: Final = "type_unspecified"


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema of Google's as JSON Schema; the body's depth bounds the recursion."""
    told = {_SPELLINGS.get(name, name): value for name, value in schema.items()}
    ordering = told.pop("propertyOrdering", None)
    is_nullable = told.pop("nullable", None) is True
    example = told.pop("example", None)
    if example is not None:
        told["examples"] = [example]
    kind = told.get("type")
    if isinstance(kind, str):
        told["type"] = kind.lower()
        if told["type"] == _UNSPECIFIED:
            del told["type"]
    for name in _BOUNDS:
        bound = told.get(name)
        if isinstance(bound, str) and bound.isdecimal():
            told[name] = int(bound)
    for name in _SINGLE:
        told.update({name: _inner(told[name])} if name in told else {})
    for name in _LISTS:
        if isinstance(told.get(name), list):
            told[name] = [_inner(item) for item in told[name]]
    for name in _NAMED:
        if isinstance(told.get(name), Mapping):
            told[name] = {key: _inner(item) for key, item in told[name].items()}
    if isinstance(ordering, list) and isinstance(told.get("properties"), Mapping):
        told["properties"] = _ordered(told["properties"], ordering)
    return _nullable(told) if is_nullable else told


def _inner(value: object) -> object:
    return json_schema(value) if isinstance(value, Mapping) else value


def _ordered(properties: Mapping[str, Any], ordering: list[object]) -> dict[str, Any]:
    """Return the properties in the order in which the model is to write them."""
    first = [name for name in ordering if isinstance(name, str) and name in properties]
    return {name: properties[name] for name in dict.fromkeys([*first, *properties])}


def _nullable(told: dict[str, Any]) -> dict[str, Any]:
    if isinstance(told.get("enum"), list) and None not in told["enum"]:
        told["enum"] = [*told["enum"], None]
    if isinstance(told.get("type"), str):
        told["type"] = [told["type"], "null"]
    elif isinstance(told.get("anyOf"), list):
        told["anyOf"] = [*told["anyOf"], {"type": "null"}]
    return told
