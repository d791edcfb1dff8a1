"""Tests of the OpenAPI schema: it is the real one, whole, and its examples are true to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from jsonschema import Draft202012Validator

from tests.support.cases import for_all

# Decided before any statement runs: once is enough.
pytestmark = pytest.mark.sqlite

ROOT = Path(__file__).resolve().parent.parent
SCHEMA: dict[str, Any] = json.loads((ROOT / "openapi.json").read_text())
METHODS = ("get", "post", "put", "patch", "delete")


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in SCHEMA["paths"].items():
        for method in METHODS:
            if method in item:
                yield f"{method.upper()} {path}", item[method]


def _json_bodies(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the body that is sent and those of good answers."""
    places = [("request", operation.get("requestBody", {}))]
    places += [
        (status, answer)
        for status, answer in operation["responses"].items()
        if status.startswith("2")
    ]
    for where, place in places:
        if content := place.get("content", {}).get("application/json"):
            yield where, content


OPERATIONS = [pytest.param(operation, id=name) for name, operation in _operations()]


def test_the_committed_description_is_the_real_one(tmp_path: Path) -> None:
    made = tmp_path / "openapi.json"

    call_command(
        "spectacular", "--format", "openapi-json", "--file", str(made), "--validate",
        "--fail-on-warn",
    )  # fmt: skip

    assert made.read_text() == (ROOT / "openapi.json").read_text()


def test_operations_are_named_alike() -> None:
    names = [operation["operationId"] for _, operation in _operations()]

    assert len(names) == len(set(names))
    odd = [name for name in names if not re.fullmatch(r"(admin|user|auth)(_[a-z0-9]+)+", name)]
    assert odd == []


@for_all("operation", OPERATIONS)
def test_an_operation_says_what_it_does(operation: dict[str, Any]) -> None:
    assert operation.get("summary")
    assert operation.get("description")


@for_all("operation", OPERATIONS)
def test_every_body_has_an_example_that_is_true_to_its_schema(operation: dict[str, Any]) -> None:
    for where, content in _json_bodies(operation):
        assert content.get("examples"), where
        schema = {**_nullable(content["schema"]), "components": COMPONENTS}
        for example in content["examples"].values():
            errors = list(Draft202012Validator(schema).iter_errors(example["value"]))
            assert errors == [], where


def _nullable(schema: Any) -> Any:
    """Return an OpenAPI 3.0 schema as JSON Schema: `nullable` becomes a type of its own."""
    if isinstance(schema, list):
        return [_nullable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _nullable(value) for name, value in schema.items() if name != "nullable"}
    if schema.get("nullable") is True:
        return {"anyOf": [plain, {"type": "null"}]}
    return plain


COMPONENTS = _nullable(SCHEMA["components"])


@for_all("operation", OPERATIONS)
def test_ids_in_paths_and_texts_in_queries_are_bounded(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"]
        if parameter["in"] == "path":
            assert schema.get("format") in {"int64", "uuid"}, parameter["name"]
        elif schema.get("type") == "integer":
            assert {"minimum", "maximum"} <= set(schema), parameter["name"]
        elif schema.get("type") == "string":
            assert {"enum", "format", "pattern"} & set(schema), parameter["name"]


@for_all("operation", OPERATIONS)
def test_a_body_takes_no_field_but_the_known(operation: dict[str, Any]) -> None:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return

    name = content["schema"]["$ref"].rpartition("/")[2]

    assert SCHEMA["components"]["schemas"][name]["additionalProperties"] is False
