"""What a request itself forces to be said: a call of a tool, what a tool told, JSON in a schema."""

from __future__ import annotations

from typing import Any

import orjson

from apps.providers.demo.answers import Function, Wishes
from apps.providers.demo.errors import ProviderError
from apps.providers.demo.instances import SchemaError, build_instance


def find_forced(wishes: Wishes, *, calls_tools: bool) -> tuple[str | None, str, str] | None:
    """Return tool, text and finish reason where the request forces what is said.

    `calls_tools`: a tool that is offered is called, unless the last word is what one answered.
    """
    function, reason = _find_forced_function(wishes, calls_tools=calls_tools)
    if function is not None:
        return function.name, _write_instance(function.schema, "tools"), reason
    if calls_tools and wishes.told is not None:
        return None, f"The tool says: {wishes.told}", "stop"
    if not wishes.is_json:
        return None
    if wishes.schema is None:
        return None, '{"answer": "demo"}', "stop"
    return None, _write_instance(wishes.schema, wishes.schema_param), "stop"


def _find_forced_function(wishes: Wishes, *, calls_tools: bool) -> tuple[Function | None, str]:
    functions, choice = wishes.functions, wishes.choice
    is_chosen = calls_tools and choice == "auto" and wishes.told is None
    if functions and (choice == "any" or is_chosen):
        return functions[0], "tool_calls"
    if choice == "named":
        # OpenAI ends a call to a function that was named by the client with "stop".
        found = next((function for function in functions if function.name == wishes.named), None)
        if found is not None:
            return found, "stop"
    elif choice != "any":
        return None, ""
    message = "Invalid value for 'tool_choice': it names no function of 'tools'."
    raise ProviderError(400, message, param="tool_choice")


def _write_instance(schema: Any, param: str) -> str:
    try:
        return orjson.dumps(build_instance(schema or {"type": "object"})).decode()
    except (SchemaError, TypeError, ValueError, OverflowError) as error:
        message = f"Invalid schema in '{param}': {error}."
        raise ProviderError(400, message, code="invalid_json_schema", param=param) from error
