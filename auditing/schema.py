"""What the OpenAPI schema says about every operation: how it can be refused."""

from __future__ import annotations

from typing import Any, Final

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


def describe_refusals(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add the refusals to every operation of the schema."""
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas["Error"] = _ERROR
    schemas["Invalid"] = _INVALID
    for path, item in result["paths"].items():
        for method in _METHODS:
            if method in item:
                _describe(item[method], has_parameter="{" in path)
    return result


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
