"""The smallest JSON value that fits a JSON schema, for tool arguments and structured answers.

Covers what OpenAI's structured outputs allow. A `pattern` is met from a list of common texts; where
none fits, the text keeps its length limits only.

Source: https://json-schema.org/draft/2020-12
"""

from __future__ import annotations

import math
import re
from typing import Any

DEPTH_MAX = 24
# Optional properties are filled in only this deep, so that recursive schemas end.
OPTIONAL_DEPTH_MAX = 4
ITEMS_MAX = 1000
TEXT_LENGTH_MAX = 100_000

_FORMATS = {
    "date": "2026-01-01",
    "time": "12:00:00Z",
    "date-time": "2026-01-01T12:00:00Z",
    "duration": "P1D",
    "email": "demo@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_PATTERN_CANDIDATES = (
    "demo", "Demo", "DEMO", "d", "D", "0", "1", "12", "123", "1234", "12345", "123456",
    "1234567890", "a1", "A1", "ABC", "AB", "abc", "ab", "AB-123", "ABC-123", "ABC-1234", "abc_def",
    "abc-def", "@demo", "#a1b2c3", "a1b2c3d4", "0.0", "1.0", "1.0.0", "v1.0.0", "+15555550100",
    "555-0100", "(555) 555-0100", "12:00", "12:00:00", "$1.00", "demo demo", "Demo Demo",
    *_FORMATS.values(),
)  # fmt: skip


class SchemaError(ValueError):
    """The schema refers to something it does not define, or nests too deeply."""


def build_instance(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """Return a small value that fits the schema. Raises SchemaError."""
    if depth > DEPTH_MAX:
        raise SchemaError("the schema nests too deeply")
    if not isinstance(schema, dict):
        return {}
    root = schema if root is None else root
    if "$ref" in schema:
        return build_instance(_resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            return _build_first_that_ends(schema, schema[key], root, depth)
    if isinstance(schema.get("allOf"), list):
        return build_instance(_merge(schema, schema["allOf"], root), root, depth + 1)
    return _build_by_type(schema, root, depth)


def _build_first_that_ends(
    schema: dict[str, Any], branches: list[Any], root: Any, depth: int
) -> Any:
    # A recursive branch may come first; a simple one such as null then ends it.
    simple_first = sorted(branches, key=lambda branch: depth > 8 and _is_nested(branch))
    rest = {key: value for key, value in schema.items() if key not in {"anyOf", "oneOf"}}
    return build_instance(_merge(rest, [simple_first[0]], root), root, depth + 1)


def _is_nested(schema: Any) -> bool:
    return isinstance(schema, dict) and (
        "$ref" in schema or "properties" in schema or "items" in schema or "anyOf" in schema
    )


def _merge(schema: dict[str, Any], others: list[Any], root: Any) -> dict[str, Any]:
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for other in others:
        for key, value in _follow(other, root).items():
            if key == "properties":
                merged[key] = {**merged.get(key, {}), **value}
            elif key == "required":
                merged[key] = [*merged.get(key, []), *value]
            else:
                merged[key] = value
    return merged


def _follow(schema: Any, root: Any) -> dict[str, Any]:
    # A reference to a reference is followed at most this often.
    for _ in range(DEPTH_MAX):
        if not isinstance(schema, dict):
            return {}
        if "$ref" not in schema:
            return schema
        schema = _resolve(schema["$ref"], root)
    raise SchemaError("the schema's references form a ring")


def _resolve(reference: Any, root: Any) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise SchemaError(f"the reference {reference!r} leaves the schema")
    found = root
    for part in reference.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            raise SchemaError(f"the reference {reference!r} leads nowhere")
        found = found[name]
    return found


def _build_by_type(schema: dict[str, Any], root: Any, depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind is None:
        kind = next((kind for key, kind in _KIND_BY_KEY.items() if key in schema), "object")
    match kind:
        case "object":
            return _build_object(schema, root, depth)
        case "array":
            return _build_array(schema, root, depth)
        case "string":
            return _build_text(schema)
        case "integer" | "number":
            return _build_number(schema, is_integer=kind == "integer")
        case "boolean":
            return True
        case _:
            return None


_KIND_BY_KEY = {
    "properties": "object",
    "items": "array",
    "minLength": "string",
    "pattern": "string",
    "format": "string",
    "minimum": "number",
    "maximum": "number",
}


def _build_object(schema: dict[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    if isinstance(schema.get("required"), list):
        names = [name for name in schema["required"] if isinstance(name, str)]
    else:
        names = list(properties) if depth < OPTIONAL_DEPTH_MAX else []
    return {name: build_instance(properties.get(name, {}), root, depth + 1) for name in names}


def _build_array(schema: dict[str, Any], root: Any, depth: int) -> list[Any]:
    prefix = schema.get("prefixItems")
    built = [build_instance(item, root, depth + 1) for item in prefix or []]
    least = min(int(schema.get("minItems", 0)), ITEMS_MAX)
    while len(built) < least:
        item = build_instance(schema.get("items", {}), root, depth + 1)
        built.append(_make_distinct(item, len(built)) if schema.get("uniqueItems") else item)
    return built


def _make_distinct(item: Any, position: int) -> Any:
    if isinstance(item, bool):
        return position == 0
    if isinstance(item, int | float):
        return item + position
    return f"{item}{position}" if isinstance(item, str) and position else item


def _build_text(schema: dict[str, Any]) -> str:
    least = min(int(schema.get("minLength", 0)), TEXT_LENGTH_MAX)
    most = int(schema.get("maxLength", TEXT_LENGTH_MAX))
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise SchemaError(f"the pattern {pattern!r} cannot be read") from error
        for candidate in _PATTERN_CANDIDATES:
            if least <= len(candidate) <= most and expression.search(candidate):
                return candidate
    text = _FORMATS.get(str(schema.get("format")), "demo")
    return text.ljust(least, "o")[:most]


def _build_number(schema: dict[str, Any], *, is_integer: bool) -> int | float:
    step = schema.get("multipleOf", 1 if is_integer else 0)
    edges = [schema[key] for key in _NUMBER_LIMITS if key in schema]
    candidates: list[int | float] = [0]
    for edge in edges:
        base = math.floor(edge / step) * step if step else edge
        candidates += [base, base + (step or 1), base - (step or 1)]
    candidates.append(sum(edges) / len(edges) if edges else 0)
    fitting = (value for value in candidates if _is_within(value, schema, step))
    value = next(fitting, 0)
    return int(value) if is_integer else value


_NUMBER_LIMITS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def _is_within(value: int | float, schema: dict[str, Any], step: int | float) -> bool:
    return (
        value >= schema.get("minimum", -math.inf)
        and value > schema.get("exclusiveMinimum", -math.inf)
        and value <= schema.get("maximum", math.inf)
        and value < schema.get("exclusiveMaximum", math.inf)
        and (not step or value % step == 0)
    )
