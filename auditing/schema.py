"""What the OpenAPI schema says about all operations alike.

How they can be refused, which ids and texts they take, and that they take no field but the known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from apps.core.filters import ID_MAX

_METHODS: Final = ("get", "post", "put", "patch", "delete")
_ERROR: Final = {
    "type": "object",
    "description": "Why a call was refused: a text for people and a code for programs.",
    "properties": {"detail": {"type": "string"}, "code": {"type": "string"}},
    "required": ["detail", "code"],
    "example": {"detail": "Not found.", "code": "not_found"},
}
_INVALID: Final = {
    "description": "What is wrong about each field, or why the body cannot be read.",
    "anyOf": [
        {"$ref": "#/components/schemas/Error"},
        {"type": "object", "additionalProperties": True},
    ],
    "example": {"name": ["This field is required."]},
}
_DESCRIPTIONS: Final = {
    "400": "The request is wrong.",
    "401": "Nobody is signed in.",
    "403": "The caller may not do this.",
    "404": "There is no such thing, or not for this caller.",
    "405": "This path has no such method.",
    "406": "No answer of the wanted kind.",
    "409": "The state of things forbids it.",
    "413": "The body is too large.",
    "415": "The body is no JSON.",
    "422": "The idempotency key was used for something else.",
    "429": "Too many calls; `Retry-After` says when to come back.",
    "503": "Busy, or the database did not answer in time.",
}
_WITH_BODY: Final = frozenset({"413", "415"})
_COMPONENTS: Final = "#/components/schemas/"
_DEPTH_MAX: Final = 20
# All but the one character that no database text can hold.
_TEXT: Final = r"^[^\u0000]*$"
# The paths take up to 18 digits.
_PATH_ID: Final = {"type": "integer", "format": "int64", "minimum": 0, "maximum": 10**18 - 1}
_UUID: Final = {"type": "string", "format": "uuid"}
_UUID_EXAMPLE: Final = "0199c2a4-6f3e-7c1a-9b52-3d8e5f7a1b2c"
_KEYS_OF_TEXT: Final = frozenset({"enum", "format", "pattern"})


def describe_all(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Say of every operation of the schema what holds for all of them."""
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas["Error"] = _ERROR
    schemas["Invalid"] = _INVALID
    taken: set[str] = set()
    for path, item in result["paths"].items():
        for method in _METHODS:
            if method not in item:
                continue
            # One heading, and one class of a generated client, for each kind of thing.
            item[method]["tags"] = [_heading(path)]
            _describe(item[method], has_parameter="{" in path)
            for parameter in item[method].get("parameters", ()):
                _bound_parameter(parameter)
            _gather(item[method].get("requestBody", {}), schemas, taken)
    for name, schema in schemas.items():
        for part in _parts(schema):
            if name in taken:
                _bound(part)
            elif part.get("type") == "string":
                # What no body may leave blank can be blank in what was recorded.
                part.pop("minLength", None)
    return result


def _heading(path: str) -> str:
    _, _, area, noun, *_ = path.split("/")
    return f"{area}-{noun}" if area == "admin" else area


def _bound_parameter(parameter: dict[str, Any]) -> None:
    schema = parameter["schema"]
    if parameter["in"] == "path":
        is_number = schema.get("type") == "integer" or "[0-9]{1,18}" in schema.get("pattern", "")
        parameter["schema"] = dict(_PATH_ID if is_number else _UUID)
        parameter["example"] = 1 if is_number else _UUID_EXAMPLE
    elif schema.get("type") == "integer":
        schema.setdefault("maximum", ID_MAX)
    elif _is_free_text(schema):
        schema["pattern"] = _TEXT
        # What is empty is refused, but for a search, which then finds everything.
        if parameter["name"] != "search":
            schema["minLength"] = 1


def _gather(found: Any, schemas: dict[str, Any], names: set[str]) -> None:
    """Add the names of all schemas that one refers to, directly or through others."""
    for part in _parts(found):
        name = str(part.get("$ref", "")).removeprefix(_COMPONENTS)
        if name and name not in names:
            names.add(name)
            _gather(schemas[name], schemas, names)


def _parts(found: Any, depth: int = _DEPTH_MAX) -> Iterator[dict[str, Any]]:
    """Give a schema and every schema written inside it."""
    if depth == 0:
        raise RecursionError("A schema is too deep.")
    if isinstance(found, dict):
        yield found
    inside = found.items() if isinstance(found, dict) else enumerate(found)
    for key, item in inside:
        if isinstance(item, dict | list) and key not in {"example", "examples"}:
            yield from _parts(item, depth - 1)


def _bound(part: dict[str, Any]) -> None:
    """Say what no body may hold."""
    if "properties" in part:
        # StrictSerializer refuses fields that it does not know.
        part.setdefault("additionalProperties", False)
    elif _is_free_text(part):
        part["pattern"] = _TEXT


def _is_free_text(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "string" and not _KEYS_OF_TEXT & set(schema)


def _describe(operation: dict[str, Any], *, has_parameter: bool) -> None:
    for status, description in _DESCRIPTIONS.items():
        if status in _WITH_BODY and "requestBody" not in operation:
            continue
        if status == "404" and not has_parameter and not _has_pages(operation):
            continue
        name = "Invalid" if status == "400" else "Error"
        operation["responses"].setdefault(
            status,
            {
                "description": description,
                "content": {
                    "application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}
                },
            },
        )


def _has_pages(operation: dict[str, Any]) -> bool:
    # A page or a cursor that does not exist is 404 as well.
    names = {parameter["name"] for parameter in operation.get("parameters", ())}
    return bool(names & {"page", "cursor"})
