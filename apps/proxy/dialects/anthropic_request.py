"""Requests of Anthropic's Messages API: what the gateway must know before it lets them through.

Everything that decides what a call can cost is checked here (E13) or refused because it cannot be
metered (E14); what only the model understands passes untouched. Whether another dialect can say
the same is not asked here.

Source: https://platform.claude.com/docs/en/api/messages
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from apps.core.parameter_names import folded
from apps.proxy.dialects.media_sources import check_address, image_length
from apps.proxy.dialects.openai_refusals import missing, unsupported, wrong_type, wrong_value
from apps.proxy.dialects.parsed_request import Endpoint, ParsedRequest
from apps.proxy.dialects.request_fields import (
    INTEGER_MAX,
    check_spelling,
    keep_allowed,
    read_boolean,
    read_integer,
    read_messages,
    read_model,
    search_bound,
)

# What is metered here, and what most requests hold beside it.
_PLAIN: Final = frozenset(
    {
        "cache_control", "context_management", "max_tokens", "messages", "metadata", "model",
        "output_config", "service_tier", "stop_sequences", "stream", "system", "temperature",
        "thinking", "tool_choice", "tools", "top_k", "top_p",
    }
)  # fmt: skip
_ROLES: Final = ("assistant", "system", "user")
# Tools that the client runs; what Anthropic runs itself is billed by the call, or reads what nobody
# bounds. Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
_CLIENT_TOOLS: Final = ("bash_", "computer_", "memory_", "text_editor_")
_SEARCH_TOOL: Final = "web_search_"
# What a tool of the client's own may hold.
_TOOL_KEYS: Final = frozenset(
    {
        "allowed_callers", "cache_control", "defer_loading", "description", "eager_input_streaming",
        "input_examples", "input_schema", "name", "strict", "type",
    }
)  # fmt: skip
# What a change of the tools within a conversation names that was defined before, and checked there.
_TOOL_REFERENCES: Final = ("mcp_tool_reference", "mcp_toolset_reference", "tool_reference")
_THINKING_KEYS: Final = frozenset({"budget_tokens", "display", "type"})
_BUDGET: Final = "thinking.budget_tokens"
_CHANGED: Final = "messages[].content[].tool"
# Edits that only leave something out; others have the model write a summary, beyond any maximum.
_FREE_EDITS: Final = "clear_"
# Blocks whose text is all that is read of them.
_TEXT_BLOCKS: Final = frozenset(
    {
        "mid_conv_system", "redacted_thinking", "search_result", "server_tool_use", "text",
        "thinking", "tool_reference", "tool_use", "web_search_tool_result",
    }
)  # fmt: skip
# What messages, blocks and their sources usually hold: none is looked for in other letters.
_MESSAGE_KEYS: Final = frozenset({"content", "role"})
_BLOCK_KEYS: Final = frozenset(
    {
        "cache_control", "citations", "content", "context", "data", "id", "input", "is_error",
        "name", "signature", "source", "text", "thinking", "title", "tool", "tool_changes",
        "tool_use_id", "type",
    }
)  # fmt: skip
_CHANGE_KEYS: Final = frozenset({"definition", "name", "server_name", "type"})
_SOURCE_KEYS: Final = frozenset({"content", "data", "file_id", "media_type", "type", "url"})
# Instructions that are added where there are tools, those for a computer being the longest.
_TOOLS_PROMPT_TOKENS: Final = 2048
_TEMPLATE_TOKENS: Final = 64
# Deeper than any content that Anthropic takes: results of tools hold documents, which hold parts.
_DEPTH_MAX: Final = 4


def parse_request(endpoint: Endpoint, body: dict[str, Any]) -> ParsedRequest:
    """Return what a request asks for. Raises E13 and E14 with the parameter at fault."""
    kept = body if body.keys() <= _PLAIN else keep_allowed(body, _PLAIN, _PLAIN)
    maximum = read_integer(kept, "max_tokens", INTEGER_MAX)
    if maximum is None:
        raise missing("max_tokens")
    has_images = _check_messages(kept)
    _check_edits(kept)
    search, searches_max = _check_tools(kept)
    budget = _thinking_budget(kept)
    return ParsedRequest(
        endpoint=endpoint,
        model=read_model(kept),
        is_stream=read_boolean(kept, "stream"),
        include_usage=True,
        choices=1,
        output_tokens_asked=maximum,
        output_parameter="max_tokens",
        has_images=has_images,
        has_audio=False,
        body=kept,
        service_tier=_service_tier(kept),
        search_parameter=search,
        dialect="anthropic",
        searches_max=searches_max,
        # Between calls of tools, thoughts may go beyond the maximum of the answer.
        beside_bound=budget if budget >= maximum else 0,
    )


def input_tokens_bound(
    body: Mapping[str, Any], serialised: bytes, context_length: int, image_tokens_max: int
) -> int:
    """Return a number of tokens that the input of this request cannot exceed.

    A token is at least one byte of text, and no model reads more than its context. Images count as
    images and not as text; anything that the provider would have to look into counts as a full
    context.
    """
    bound = len(serialised) + _TEMPLATE_TOKENS
    for block, depth in _all_blocks(body):
        kind = block.get("type")
        source = block.get("source")
        if kind == "image":
            bound += image_tokens_max - image_length(source)
        elif kind == "document":
            if not (isinstance(source, dict) and source.get("type") in ("content", "text")):
                return context_length
        elif kind != "tool_result" and not (isinstance(kind, str) and kind in _TEXT_BLOCKS):
            return context_length
        if depth == _DEPTH_MAX:
            return context_length
    if body.get("tools"):
        bound += _TOOLS_PROMPT_TOKENS
    return min(bound, context_length)


def _all_blocks(body: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Yield all blocks of the messages, those within others too, each with its depth."""
    for holder in (*body["messages"], {"content": body.get("system")}):
        yield from _blocks(holder, 1)


def _blocks(holder: Mapping[str, Any], depth: int) -> Iterator[tuple[Mapping[str, Any], int]]:
    content = holder.get("content")
    for block in content if isinstance(content, list) and depth <= _DEPTH_MAX else ():
        if isinstance(block, dict):
            yield block, depth
            if "content" in block:
                yield from _blocks(block, depth + 1)
            source = block.get("source")
            if isinstance(source, dict) and "content" in source:
                yield from _blocks(source, depth + 1)
            if "tool_changes" in block:
                # Those that a summary of the conversation stands for.
                yield from _blocks({"content": block["tool_changes"]}, depth + 1)


def _check_messages(body: Mapping[str, Any]) -> bool:
    """Return whether there is anything to be read but text."""
    for index, message in enumerate(read_messages(body)):
        if not message.keys() <= _MESSAGE_KEYS:
            check_spelling(message, _MESSAGE_KEYS, f"messages[{index}]")
        role = message.get("role")
        if role is None:
            raise missing(f"messages[{index}].role")
        if role not in _ROLES:
            raise wrong_value(f"messages[{index}].role", f"one of {', '.join(_ROLES)}")
        _check_content(message.get("content"), f"messages[{index}].content")
    _check_content(body.get("system"), "system")
    has_images = False
    for block, _ in _all_blocks(body):
        if not block.keys() <= _BLOCK_KEYS:
            check_spelling(block, _BLOCK_KEYS, "messages[].content[]")
        source = block.get("source")
        if isinstance(source, dict):
            check_spelling(source, _SOURCE_KEYS, "messages[].content[].source")
            place = "messages[].content[].source.url"
            check_address(source.get("url"), place, may_be_bytes=False)
        kind = block.get("type")
        if kind == "container_upload":
            # It is read by a program that runs at the provider's.
            raise unsupported("messages[].content[].type")
        is_text = kind == "tool_result" or (isinstance(kind, str) and kind in _TEXT_BLOCKS)
        has_images = has_images or not is_text
    return has_images


def _check_content(content: object, where: str) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise wrong_type(where, "a string or an array of objects")
    for position, block in enumerate(content):
        if not isinstance(block, dict):
            raise wrong_type(f"{where}[{position}]", "an object")


def _check_tools(body: Mapping[str, Any]) -> tuple[str, int | None]:
    """Return by which parameter the provider may search, "" where it may not, and how often at
    most. Raises E14 for other tools that it runs by itself, and for what nobody knows of a tool.
    """
    tools = body.get("tools")
    if tools is not None and not isinstance(tools, list):
        raise wrong_type("tools", "an array of objects")
    found = [_check_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools or ())]
    found += [_check_tool(tool, f"{_CHANGED}.definition") for tool in _defined_within(body)]
    searches = [search for search in found if search is not None]
    if len(searches) > 1:
        # Each has a bound of its own, and nobody knows which counts.
        return searches[0][0], None
    return searches[0] if searches else ("", None)


def _check_tool(tool: object, place: str) -> tuple[str, int | None] | None:
    """Return by which parameter a tool searches and how often at most, None where it does not.

    Raises E14 for another one that the provider runs, and for what nobody knows of a tool.
    """
    if not isinstance(tool, dict):
        raise wrong_type(place, "an object")
    for key in tool:
        if key != "type" and folded(key) == "type":
            raise unsupported(f"{place}.{key}")
    kind = tool.get("type")
    if kind is None or kind == "custom":
        for key, value in tool.items():
            # As some provider may know it: a tool that it runs, or a longer prompt.
            if key not in _TOOL_KEYS and value is not None and value is not False:
                raise unsupported(f"{place}.{key}")
        return None
    if not isinstance(kind, str):
        raise wrong_type(f"{place}.type", "a string")
    if kind.startswith(_SEARCH_TOOL):
        return f"{place}.type", search_bound(tool.get("max_uses"))
    if not kind.startswith(_CLIENT_TOOLS):
        raise unsupported(f"{place}.type")
    return None


def _defined_within(body: Mapping[str, Any]) -> Iterator[object]:
    """Yield the tools that blocks of the conversation define.

    Raises E14 for a change of the tools that neither defines one nor names one defined before.
    """
    for block, _ in _all_blocks(body):
        tool = block.get("tool")
        if tool is None:
            continue
        if not isinstance(tool, dict):
            raise wrong_type(_CHANGED, "an object")
        check_spelling(tool, _CHANGE_KEYS, _CHANGED)
        if "definition" in tool:
            yield tool["definition"]
        elif tool.get("type") not in _TOOL_REFERENCES:
            raise unsupported(f"{_CHANGED}.type")


def _thinking_budget(body: Mapping[str, Any]) -> int:
    """Return how many tokens may be thought, 0 where no number is told. Raises E13 and E14.

    Source: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
    """
    thinking = body.get("thinking")
    if thinking is None:
        return 0
    if not isinstance(thinking, dict):
        raise wrong_type("thinking", "an object")
    check_spelling(thinking, _THINKING_KEYS, "thinking")
    told = {_BUDGET: thinking.get("budget_tokens")}
    return read_integer(told, _BUDGET, INTEGER_MAX) or 0


def _check_edits(body: Mapping[str, Any]) -> None:
    """Raise E14 for an edit of the conversation that makes the model write more."""
    management = body.get("context_management")
    if management is None:
        return
    edits = management.get("edits") if isinstance(management, dict) else None
    for index, edit in enumerate(edits if isinstance(edits, list) else ()):
        kind = edit.get("type") if isinstance(edit, dict) else None
        if not isinstance(kind, str) or not kind.startswith(_FREE_EDITS):
            raise unsupported(f"context_management.edits[{index}].type")
    if edits is not None and not isinstance(edits, list):
        raise wrong_type("context_management.edits", "an array of objects")
    if not isinstance(management, dict):
        raise wrong_type("context_management", "an object")


def _service_tier(body: Mapping[str, Any]) -> str:
    """Return the tier. Both that clients can ask for are the usual one: only the operator can have
    bought capacity that `auto` would use, and the answer tells which was served.
    """
    tier = body.get("service_tier")
    if tier not in (None, "auto", "standard_only"):
        raise unsupported("service_tier")
    return ""
