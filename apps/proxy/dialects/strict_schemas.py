"""JSON Schemas to which a model is held, and what those who hold it ask of them.

OpenAI: each object lists all of its properties as required, and has no others. Anthropic: it has no
others, and there are no bounds of numbers, texts and arrays; what is left out is told in the
description, as Anthropic's own SDKs do.

Sources: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas and
https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

# Members that hold schemas, by what they hold them in; names of properties are no members.
_SINGLE: Final = ("items", "additionalProperties", "not")
_LISTS: Final = ("anyOf", "allOf", "oneOf", "prefixItems")
_NAMED: Final = ("properties", "$defs", "definitions")
_BOUNDS: Final = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
    "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties",
)  # fmt: skip
_ITEMS_MIN_MAX: Final = 1  # the highest `minItems` that Anthropic takes

Schema = Mapping[str, Any]


def closed(schema: Schema) -> dict[str, Any]:
    """Return a schema whose objects have no other properties than those that are told.

    Google's models write no others, and other providers want it said.
    """
    told = _with_inner(schema, closed)
    if _is_object(schema) and isinstance(schema.get("properties"), Mapping):
        told.setdefault("additionalProperties", False)
    return told


def is_strict(schema: Schema) -> bool:
    """Return whether OpenAI holds a model to a schema."""
    if _is_object(schema):
        if schema.get("additionalProperties") is not False:
            return False
        required, properties = schema.get("required", []), schema.get("properties", {})
        if not isinstance(required, list) or not isinstance(properties, Mapping):
            return False
        if {str(name) for name in required} != properties.keys():
            return False
    return all(map(is_strict, _inner(schema)))


def for_claude(schema: Schema) -> dict[str, Any] | None:
    """Return a schema to which Anthropic holds a model, None where an object takes any property."""
    told = _without_bounds(closed(schema))
    return told if _is_closed(told) else None


def _is_closed(schema: Schema) -> bool:
    if _is_object(schema) and schema.get("additionalProperties") is not False:
        return False
    return all(map(_is_closed, _inner(schema)))


def _without_bounds(schema: Schema) -> dict[str, Any]:
    told = _with_inner(schema, _without_bounds)
    bounds = {name: told[name] for name in _BOUNDS if name in told}
    if bounds.get("minItems") in range(_ITEMS_MIN_MAX + 1):
        del bounds["minItems"]
    if bounds:
        kept = {name: value for name, value in told.items() if name not in bounds}
        words = ", ".join(f"{name}: {value}" for name, value in bounds.items())
        described = told.get("description")
        kept["description"] = f"{described}\n\n{{{words}}}" if described else f"{{{words}}}"
        return kept
    return told


def _is_object(schema: Schema) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def _inner(schema: Schema) -> Iterator[Schema]:
    """Yield the schemas within a schema."""
    found: list[Any] = [schema.get(name) for name in _SINGLE]
    for name in _LISTS:
        listed = schema.get(name)
        found += listed if isinstance(listed, list) else ()
    for name in _NAMED:
        named = schema.get(name)
        found += named.values() if isinstance(named, Mapping) else ()
    return (item for item in found if isinstance(item, Mapping))


def _with_inner(schema: Schema, change: Callable[[Schema], dict[str, Any]]) -> dict[str, Any]:
    """Return a schema with each schema within it changed; the body's depth bounds the recursion."""

    def changed(item: object) -> object:
        return change(item) if isinstance(item, Mapping) else item

    told = dict(schema)
    for name in _SINGLE:
        if name in told:
            told[name] = changed(told[name])
    for name in _LISTS:
        if isinstance(told.get(name), list):
            told[name] = [changed(item) for item in told[name]]
    for name in _NAMED:
        if isinstance(told.get(name), Mapping):
            told[name] = {key: changed(item) for key, item in told[name].items()}
    return told
