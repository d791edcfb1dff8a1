"""Requests of Anthropic's own dialect: what within them decides what a call can cost."""

from typing import Any, Final

import pytest

from apps.core.errors import GatewayError
from apps.proxy.dialects.anthropic_request import parse_request
from apps.proxy.dialects.parsed_request import ParsedRequest
from tests.support.cases import for_all

HI: Final = {"role": "user", "content": "Hi"}
SEARCH: Final = {"type": "web_search_20260318", "name": "web_search"}
FUNCTION: Final = {"name": "f", "input_schema": {"type": "object"}}
WITHIN: Final = "messages[].content[].tool"


def parse(*blocks: dict[str, Any], **members: Any) -> ParsedRequest:
    """Return what a request asks for whose conversation holds these blocks of a system message."""
    messages = [HI, {"role": "system", "content": list(blocks)}]
    return parse_request(
        "messages", {"model": "m", "max_tokens": 100, "messages": messages, **members}
    )


def refusal(*blocks: dict[str, Any], **members: Any) -> tuple[str, str | None]:
    with pytest.raises(GatewayError) as error:
        parse(*blocks, **members)
    return error.value.row, error.value.param


def defined(definition: Any) -> dict[str, Any]:
    return {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": definition}}


def summed_up(*changes: dict[str, Any]) -> dict[str, Any]:
    return {"type": "compaction", "content": "They met.", "tool_changes": list(changes)}


# ---- tools that a conversation defines


@for_all(
    ("definition", "row", "param"),
    [
        ({"type": "advisor_20260301", "model": "claude-opus-5-5"}, "E14", ".definition.type"),
        ({"type": "code_execution_20260521"}, "E14", ".definition.type"),
        ({"type": "web_fetch_20260318"}, "E14", ".definition.type"),
        ({"type": "mcp_toolset", "mcp_server_name": "a"}, "E14", ".definition.type"),
        ({**FUNCTION, "Type": "web_fetch_20260318"}, "E14", ".definition.Type"),
        ({**FUNCTION, "mystery": 1}, "E14", ".definition.mystery"),
        ({"type": 1}, "E13", ".definition.type"),
        ("web_search", "E13", ".definition"),
    ],
)
def test_what_tools_refuses_is_refused_within_a_conversation(
    definition: Any, row: str, param: str
) -> None:
    assert refusal(defined(definition)) == (row, WITHIN + param)
    assert refusal(summed_up(defined(definition))) == (row, WITHIN + param)


@for_all(
    ("tool", "row", "param"),
    [
        ({"type": "tool_of_tomorrow", "name": "f"}, "E14", ".type"),
        ({"type": [], "name": "f"}, "E14", ".type"),
        ({"type": "tool_reference", "Definition": SEARCH}, "E14", ".Definition"),
        (
            {"type": "tool_reference", "definition": {"type": "web_fetch_20260318"}},
            "E14",
            ".definition.type",
        ),
        ("f", "E13", ""),
    ],
)
def test_a_change_of_the_tools_that_nobody_knows_is_refused(
    tool: Any, row: str, param: str
) -> None:
    assert refusal({"type": "tool_addition", "tool": tool}) == (row, WITHIN + param)


def test_searches_that_a_conversation_defines_are_held_for() -> None:
    bounded = parse(defined({**SEARCH, "max_uses": 3}))
    summed = parse(summed_up(defined({**SEARCH, "max_uses": 3})))
    twice = parse(defined({**SEARCH, "max_uses": 3}), tools=[{**SEARCH, "max_uses": 3}])

    place = f"{WITHIN}.definition.type"
    assert (bounded.search_parameter, bounded.searches_max) == (place, 3)
    assert (summed.search_parameter, summed.searches_max) == (place, 3)
    assert (twice.search_parameter, twice.searches_max) == ("tools[0].type", None)


def test_tools_of_the_client_may_come_and_go_within_a_conversation() -> None:
    known = {"type": "tool_reference", "name": "f"}
    blocks = [
        defined(FUNCTION),
        defined({"type": "bash_20250124", "name": "bash"}),
        {"type": "tool_removal", "tool": known},
        {"type": "tool_addition", "tool": known, "cache_control": {"type": "ephemeral"}},
    ]

    request = parse(*blocks)

    assert request.body["messages"][1]["content"] == blocks
    assert not request.has_web_search


# ---- thoughts beyond the maximum


@for_all(
    ("thinking", "beside"),
    [
        ({"type": "enabled", "budget_tokens": 99}, 0),
        ({"type": "enabled", "budget_tokens": 100}, 100),
        ({"type": "enabled", "budget_tokens": 150_000}, 150_000),
        ({"budget_tokens": 150_000}, 150_000),
        ({"type": "enabled", "budget_tokens": None}, 0),
        ({"type": "adaptive", "display": "omitted"}, 0),
        (None, 0),
    ],
)
def test_a_budget_of_thoughts_beyond_the_maximum_is_held_for_beside_it(
    thinking: Any, beside: int
) -> None:
    request = parse(thinking=thinking)

    assert (request.output_tokens_asked, request.beside_bound) == (100, beside)


@for_all(
    ("thinking", "row", "param"),
    [
        ("enabled", "E13", "thinking"),
        ({"budget_tokens": 150_000.0}, "E13", "thinking.budget_tokens"),
        ({"budget_tokens": "150000"}, "E13", "thinking.budget_tokens"),
        ({"budget_tokens": -1}, "E13", "thinking.budget_tokens"),
        ({"budgetTokens": 150_000}, "E14", "thinking.budgetTokens"),
    ],
)
def test_a_budget_that_is_no_number_of_tokens_is_refused(
    thinking: Any, row: str, param: str
) -> None:
    assert refusal(thinking=thinking) == (row, param)
