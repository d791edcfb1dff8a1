"""Members of a request: their types, their names in errors, and that none is passed over."""

from collections.abc import Callable
from typing import Any

import pytest

from apps.core.errors import GatewayError
from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.parameters import Parameters
from tests.support.cases import for_all

HI = [{"role": "user", "content": "Hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "openai": {"model": "m", "max_tokens": 10, "messages": HI},
    "anthropic": {"model": "m", "max_tokens": 10, "messages": HI},
    "openai-responses": {"model": "m", "max_output_tokens": 10, "input": HI},
}


def refusal_of(call: Callable[[], object]) -> tuple[str, str, str | None]:
    with pytest.raises(GatewayError) as refusal:
        call()
    return refusal.value.row, refusal.value.code, refusal.value.param


def test_null_is_absent_and_what_is_empty_needs_no_reader() -> None:
    given = Parameters({"a": None, "b": [], "c": {}, "d": None})

    assert given.text("a") is None
    assert given.objects("d") == []
    assert "a" not in given
    given.finish()


@pytest.mark.parametrize("value", [0, False, "", "x", [0], {"a": None}])
def test_what_nobody_read_is_refused(value: object) -> None:
    given = Parameters({"a": value}, "tools[0]")

    assert refusal_of(given.finish) == ("E14", "unsupported_parameter", "tools[0].a")


@for_all(
    ("read", "value", "code"),
    [
        (lambda given: given.text("a"), 1, "invalid_type"),
        (lambda given: given.require_text("a"), None, "missing_required_parameter"),
        (lambda given: given.flag("a"), 1, "invalid_type"),
        (lambda given: given.integer("a"), True, "invalid_type"),
        (lambda given: given.integer("a"), 1.0, "invalid_type"),
        (lambda given: given.number("a", 0, 1), "1", "invalid_type"),
        (lambda given: given.number("a", 0, 1), True, "invalid_type"),
        (lambda given: given.number("a", 0, 1), 1.1, "invalid_value"),
        (lambda given: given.number("a", 0, 1), -0.1, "invalid_value"),
        (lambda given: given.one_of("a", ("x",)), "y", "invalid_value"),
        (lambda given: given.mapping("a"), [], "invalid_type"),
        (lambda given: given.member("a"), "x", "invalid_type"),
        (lambda given: given.require_object("a"), None, "missing_required_parameter"),
        (lambda given: given.objects("a"), {}, "invalid_type"),
        (lambda given: given.texts("a"), ["x", 1], "invalid_type"),
        (lambda given: given.texts("a"), "x", "invalid_type"),
    ],
)
def test_a_member_of_another_type_is_refused_by_its_name(
    read: Callable[[Parameters], object], value: object, code: str
) -> None:
    given = Parameters({"a": value}, "b.c")

    assert refusal_of(lambda: read(given)) == ("E13", code, "b.c.a")


def test_an_array_of_anything_else_than_objects_is_refused_at_its_place() -> None:
    given = Parameters({"a": [{}, 1]})

    assert refusal_of(lambda: given.objects("a")) == ("E13", "invalid_type", "a[1]")


def test_a_member_may_pass_with_the_values_that_change_nothing() -> None:
    given = Parameters({"store": False, "n": 1, "zero": 0, "any": "x"})

    given.ignore("store", unless=(False,))
    given.ignore("n", unless=(1.0,))
    given.ignore("any")
    given.ignore("absent", unless=(1,))

    # 0 is not False.
    refusal = refusal_of(lambda: given.ignore("zero", unless=(False,)))
    assert refusal == ("E14", "unsupported_parameter", "zero")


@for_all(
    ("dialect", "changed", "row", "param"),
    [
        ("openai", {"messages": None}, "E13", "messages"),
        ("openai", {"messages": [{"content": "Hi"}]}, "E13", "messages[0].role"),
        ("openai", {"messages": [{"role": "function"}]}, "E13", "messages[0].role"),
        ("openai", {"messages": [{"role": "user", "content": 1}]}, "E13", "messages[0].content"),
        (
            "openai",
            {"messages": [{"role": "tool", "content": "x"}]},
            "E13",
            "messages[0].tool_call_id",
        ),
        (
            "openai",
            {
                "messages": [
                    {
                        "role": "system",
                        "content": [{"type": "image_url", "image_url": {"url": "https://a.b/c"}}],
                    }
                ]
            },
            "E14",
            "messages[0].content",
        ),
        (
            "openai",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "data:image/png,x"}}
                        ],
                    }
                ]
            },
            "E13",
            "messages[0].content[0].image_url.url",
        ),
        ("openai", {"max_tokens": 0}, "E13", "max_tokens"),
        ("openai", {"n": 0}, "E13", "n"),
        ("openai", {"stop": 1}, "E13", "stop"),
        ("openai", {"temperature": 2.5}, "E13", "temperature"),
        ("openai", {"reasoning_effort": "huge"}, "E13", "reasoning_effort"),
        ("openai", {"response_format": {"type": "xml"}}, "E14", "response_format.type"),
        ("openai", {"tool_choice": "maybe"}, "E13", "tool_choice"),
        ("openai", {"model": None}, "E13", "model"),
        ("anthropic", {"max_tokens": None}, "E13", "max_tokens"),
        ("anthropic", {"max_tokens": 0}, "E13", "max_tokens"),
        ("anthropic", {"messages": []}, "E13", "messages"),
        ("anthropic", {"messages": [{"content": "Hi"}]}, "E13", "messages[0].role"),
        ("anthropic", {"temperature": 1.5}, "E13", "temperature"),
        ("anthropic", {"system": [{"type": "image"}]}, "E13", "system[0].source"),
        ("anthropic", {"tools": [{"name": "a"}]}, "E13", "tools[0].input_schema"),
        ("anthropic", {"tool_choice": {}}, "E13", "tool_choice.type"),
        ("anthropic", {"tool_choice": {"type": "tool"}}, "E13", "tool_choice.name"),
        (
            "anthropic",
            {"output_config": {"format": {"type": "json_schema"}}},
            "E13",
            "output_config.format.schema",
        ),
        ("anthropic", {"output_config": {"effort": "minimal"}}, "E13", "output_config.effort"),
        ("anthropic", {"cache_control": {"type": "eternal"}}, "E13", "cache_control.type"),
        (
            "anthropic",
            {"cache_control": {"type": "ephemeral", "ttl": "2h"}},
            "E13",
            "cache_control.ttl",
        ),
        ("openai-responses", {"input": None}, "E13", "input"),
        ("openai-responses", {"input": 1}, "E13", "input"),
        ("openai-responses", {"input": [1]}, "E13", "input[0]"),
        ("openai-responses", {"input": [{"content": "Hi"}]}, "E13", "input[0].role"),
        ("openai-responses", {"input": [{"type": "message"}]}, "E13", "input[0].role"),
        ("openai-responses", {"input": [{"role": "tool"}]}, "E13", "input[0].role"),
        (
            "openai-responses",
            {"input": [{"role": "user", "content": 1}]},
            "E13",
            "input[0].content",
        ),
        (
            "openai-responses",
            {"input": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
            "E14",
            "input[0].content[0].type",
        ),
        (
            "openai-responses",
            {
                "input": [
                    {
                        "role": "developer",
                        "content": [{"type": "input_image", "image_url": "https://a.b/c"}],
                    }
                ]
            },
            "E14",
            "input[0].content",
        ),
        (
            "openai-responses",
            {
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": "data:image/png,x"}],
                    }
                ]
            },
            "E13",
            "input[0].content[0].image_url",
        ),
        (
            "openai-responses",
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "x"}]}]},
            "E13",
            "input[0].content[0].file_data",
        ),
        (
            "openai-responses",
            {"input": [{"type": "function_call", "name": "a", "arguments": "{}"}]},
            "E13",
            "input[0].call_id",
        ),
        (
            "openai-responses",
            {"input": [{"type": "function_call_output", "call_id": "a"}]},
            "E13",
            "input[0].output",
        ),
        (
            "openai-responses",
            {
                "input": [
                    {
                        "type": "function_call_output",
                        "call_id": "a",
                        "output": [{"type": "refusal", "refusal": "No."}],
                    }
                ]
            },
            "E14",
            "input[0].output",
        ),
        (
            "openai-responses",
            {"input": [{"type": "custom_tool_call", "call_id": "a", "name": "b"}]},
            "E13",
            "input[0].input",
        ),
        (
            "openai-responses",
            {"input": [{"type": "reasoning", "summary": [{"type": "text", "text": "x"}]}]},
            "E14",
            "input[0].summary[0].type",
        ),
        ("openai-responses", {"max_output_tokens": 0}, "E13", "max_output_tokens"),
        ("openai-responses", {"temperature": 2.5}, "E13", "temperature"),
        ("openai-responses", {"tool_choice": "maybe"}, "E13", "tool_choice"),
        ("openai-responses", {"tool_choice": {"type": "mcp"}}, "E14", "tool_choice.type"),
        ("openai-responses", {"tools": [{"name": "a"}]}, "E13", "tools[0].type"),
        ("openai-responses", {"tools": [{"type": "custom"}]}, "E13", "tools[0].name"),
        (
            "openai-responses",
            {"tools": [{"type": "custom", "name": "a", "format": {"type": "xml"}}]},
            "E14",
            "tools[0].format.type",
        ),
        (
            "openai-responses",
            {"tools": [{"type": "namespace", "name": "a", "tools": [{"type": "mcp"}]}]},
            "E14",
            "tools[0].tools[0].type",
        ),
        ("openai-responses", {"reasoning": {"effort": "huge"}}, "E13", "reasoning.effort"),
        ("openai-responses", {"reasoning": {"summary": "long"}}, "E13", "reasoning.summary"),
        ("openai-responses", {"reasoning": {"mode": "pro"}}, "E14", "reasoning.mode"),
        ("openai-responses", {"text": {"verbosity": "huge"}}, "E13", "text.verbosity"),
        ("openai-responses", {"text": {"format": {"type": "xml"}}}, "E14", "text.format.type"),
        (
            "openai-responses",
            {"text": {"format": {"type": "json_schema", "name": "a"}}},
            "E13",
            "text.format.schema",
        ),
        ("openai-responses", {"include": ["x"]}, "E14", "include[0]"),
        ("openai-responses", {"model": None}, "E13", "model"),
        ("openai-responses", {"messages": HI}, "E14", "messages"),
    ],
)
def test_a_request_that_cannot_be_is_refused_by_the_parameter_at_fault(
    dialect: str, changed: dict[str, Any], row: str, param: str
) -> None:
    body = {**BODIES[dialect], **changed}

    found = refusal_of(lambda: DIALECTS[dialect].read_request(body))

    assert (found[0], found[2]) == (row, param)
