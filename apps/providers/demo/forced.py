"""What a request itself forces to be said: a call of a tool, what a tool told, JSON in a schema."""

from __future__ import annotations

from typing import Any

import orjson

from apps.providers.demo.errors import ProviderError
from apps.providers.demo.instances import SchemaError, build_instance


def find_forced(body: dict[str, Any], *, calls_tools: bool) -> tuple[str | None, str, str] | None:
    """Return tool, text and finish reason where the request forces what is said.

    `calls_tools`: a tool that is offered is called, unless the last word is what one answered.
    """
    function, reason = _find_forced_function(body, calls_tools=calls_tools)
    if function is not None:
        text = _write_instance(function.get("parameters") or {"type": "object"}, "tools")
        return str(function["name"]), text, reason
    told = _find_told(body) if calls_tools else None
    if told is not None:
        return None, f"The tool says: {told}", "stop"
    response_format = body.get("response_format")
    if not isinstance(response_format, dict):
        return None
    if response_format.get("type") == "json_object":
        return None, '{"answer": "demo"}', "stop"
    if response_format.get("type") == "json_schema":
        described = response_format.get("json_schema")
        if not isinstance(described, dict) or not isinstance(described.get("schema"), dict):
            message = "Missing required parameter: 'response_format.json_schema.schema'."
            raise ProviderError(400, message, param="response_format.json_schema.schema")
        return None, _write_instance(described["schema"], "response_format"), "stop"
    return None


def _find_forced_function(
    body: dict[str, Any], *, calls_tools: bool
) -> tuple[dict[str, Any] | None, str]:
    choice = body.get("tool_choice")
    functions = [
        tool["function"]
        for tool in body.get("tools") or []
        if isinstance(tool, dict) and isinstance(tool.get("function"), dict)
    ]
    functions = [function for function in functions if isinstance(function.get("name"), str)]
    is_chosen = calls_tools and choice in (None, "auto") and _find_told(body) is None
    if functions and (choice == "required" or is_chosen):
        return functions[0], "tool_calls"
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        name = choice["function"].get("name")
        # OpenAI ends a call to a function that was named by the client with "stop".
        found = next((function for function in functions if function["name"] == name), None)
        if found is not None:
            return found, "stop"
    elif choice != "required":
        return None, ""
    message = "Invalid value for 'tool_choice': it names no function of 'tools'."
    raise ProviderError(400, message, param="tool_choice")


def _find_told(body: dict[str, Any]) -> str | None:
    """Return what a tool answered, where that is the last message."""
    last = body["messages"][-1]
    content = last.get("content")
    return content if last["role"] == "tool" and isinstance(content, str) else None


def _write_instance(schema: Any, param: str) -> str:
    try:
        return orjson.dumps(build_instance(schema)).decode()
    except (SchemaError, TypeError, ValueError, OverflowError) as error:
        message = f"Invalid schema in '{param}': {error}."
        raise ProviderError(400, message, code="invalid_json_schema", param=param) from error
