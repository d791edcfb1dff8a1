"""Requests of OpenAI's Responses: what the gateway must know before it lets them through.

Everything that decides what a call can cost is checked here (E13) or refused because it cannot be
metered (E14); what only the model understands passes untouched. Whether another dialect can say
the same is not asked here.

Source: https://platform.openai.com/docs/api-reference/responses/create
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from apps.core.parameter_names import folded
from apps.proxy.dialects.media_sources import check_addresses, image_url_length, is_bounded_sound
from apps.proxy.dialects.openai_refusals import missing, unsupported, wrong_type
from apps.proxy.dialects.openai_request import read_service_tier
from apps.proxy.dialects.openai_upstream import TEMPLATE_TOKENS, TOOLS_PROMPT_TOKENS
from apps.proxy.dialects.parsed_request import Endpoint, ParsedRequest
from apps.proxy.dialects.request_fields import (
    INTEGER_MAX,
    check_spelling,
    keep_allowed,
    read_boolean,
    read_integer,
    read_model,
    search_bound,
)
from apps.proxy.dialects.responses_stored import is_whole_thought

OUTPUT_PARAMETER: Final = "max_output_tokens"
# What is metered here, and what most requests hold beside it.
_PLAIN: Final = frozenset(
    {
        "background", "client_metadata", "context_management", "conversation", "include", "input",
        "instructions", "max_output_tokens", "max_tool_calls", "metadata", "model",
        "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key",
        "prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store",
        "stream", "stream_options", "temperature", "text", "tool_choice", "tools", "top_logprobs",
        "top_p", "truncation", "user",
    }
)  # fmt: skip
# What lies with the provider and is read as well, however long it is.
_KEPT_ELSEWHERE: Final = ("conversation", "previous_response_id", "prompt")
# Tools that the client runs. What OpenAI runs itself is billed by the call or by the minute, or
# reads what nobody bounds. Source: https://platform.openai.com/docs/pricing
_CLIENT_TOOLS: Final = frozenset(
    {
        "apply_patch", "computer", "computer_use", "computer_use_preview", "custom", "function",
        "local_shell", "tool_search",
    }
)  # fmt: skip
# Others that begin so (of images, at Alibaba's) are counted by nobody here.
_SEARCH_TOOL: Final = re.compile(r"web_search(?:_preview)?(?:_\d{4}_\d{2}_\d{2})?", re.ASCII)
# Items whose text is all that is read of them.
_TEXT_ITEMS: Final = frozenset(
    {
        None, "additional_tools", "apply_patch_call", "apply_patch_call_output", "custom_tool_call",
        "custom_tool_call_output", "function_call", "function_call_output", "local_shell_call",
        "local_shell_call_output", "message", "reasoning", "shell_call", "shell_call_output",
        "tool_search_call", "tool_search_output",
    }
)  # fmt: skip
# An item that has the model write a summary, beyond any maximum.
_SUMMARY_TRIGGER: Final = "compaction_trigger"
_TEXT_PARTS: Final = ("input_text", "output_text", "refusal")
# What items and their parts usually hold: none is looked for in other letters.
_ITEM_KEYS: Final = frozenset(
    {
        "arguments", "call_id", "content", "encrypted_content", "id", "input", "name", "namespace",
        "output", "phase", "role", "status", "summary", "tools", "type",
    }
)  # fmt: skip
_PART_KEYS: Final = frozenset(
    {
        "annotations", "detail", "file_data", "file_id", "file_url", "filename", "image_url",
        "input_audio", "logprobs", "refusal", "text", "type",
    }
)  # fmt: skip


def parse_request(endpoint: Endpoint, body: dict[str, Any]) -> ParsedRequest:
    """Return what a request asks for. Raises E13 and E14 with the parameter at fault."""
    kept = body if body.keys() <= _PLAIN else keep_allowed(body, _PLAIN, _PLAIN)
    if read_boolean(kept, "background"):
        # It goes on after its answer, and nobody would be told what it cost.
        raise unsupported("background")
    if kept.get("conversation") is not None:
        # All callers of a provider share its account, and nobody knows whose this one is.
        raise unsupported("conversation")
    if kept.get("context_management"):
        # The model writes a summary, beyond any maximum.
        raise unsupported("context_management")
    _check_reasoning(kept)
    items = _items(kept)
    search = _check_tools(kept, "")
    for index, item in enumerate(items):
        if item.get("type") == _SUMMARY_TRIGGER:
            raise unsupported(f"input[{index}].type")
        if not item.keys() <= _ITEM_KEYS:
            check_spelling(item, _ITEM_KEYS, f"input[{index}]")
        for part in _parts(item):
            if not part.keys() <= _PART_KEYS:
                check_spelling(part, _PART_KEYS, f"input[{index}]")
            check_addresses(part, f"input[{index}]")
        if isinstance(item.get("output"), dict):
            # A picture of a screen.
            check_addresses(item["output"], f"input[{index}].output")
        if "tools" in item:
            search = search or _check_tools(item, f"input[{index}].")
    return ParsedRequest(
        endpoint=endpoint,
        model=read_model(kept),
        is_stream=read_boolean(kept, "stream"),
        include_usage=True,
        choices=1,
        output_tokens_asked=read_integer(kept, OUTPUT_PARAMETER, INTEGER_MAX),
        output_parameter=OUTPUT_PARAMETER if kept.get(OUTPUT_PARAMETER) is not None else None,
        has_images=_lies_elsewhere(kept) or not all(map(_is_text, items)),
        has_audio=_lies_elsewhere(kept) or any(_has_part(item, "input_audio") for item in items),
        body=kept,
        service_tier=read_service_tier(kept),
        search_parameter=search,
        dialect="openai-responses",
        searches_max=search_bound(kept.get("max_tool_calls")) if search else None,
    )


def counted_request(body: dict[str, Any]) -> dict[str, Any]:
    """Return a request whose input is to be counted. Raises E14 for what lies with the provider:
    nobody here knows how long it is.
    """
    for name in _KEPT_ELSEWHERE:
        if body.get(name) is not None:
            raise unsupported(name)
    return body


def input_tokens_bound(
    body: Mapping[str, Any], serialised: bytes, context_length: int, image_tokens_max: int
) -> int:
    """Return a number of tokens that the input of this request cannot exceed.

    A token is at least one byte of text, and no model reads more than its context. Images count as
    images and not as text; anything that lies with the provider, or that it would have to look
    into, counts as a full context.
    """
    if _lies_elsewhere(body):
        return context_length
    bound = len(serialised) + TEMPLATE_TOKENS
    items = _items(body)
    for item in items:
        if not _is_readable(item):
            return context_length
        for part in _parts(item):
            kind = part.get("type")
            if kind == "input_image" and part.get("file_id") is None:
                bound += image_tokens_max - image_url_length(part.get("image_url"))
            elif kind not in _TEXT_PARTS and not is_bounded_sound(part):
                return context_length
    if any(holder.get("tools") for holder in (body, *items)):
        bound += TOOLS_PROMPT_TOKENS
    return min(bound, context_length)


def _lies_elsewhere(body: Mapping[str, Any]) -> bool:
    """Return whether more is read than the request holds."""
    return any(body.get(name) is not None for name in _KEPT_ELSEWHERE)


def _is_readable(item: Mapping[str, Any]) -> bool:
    """Return whether all that is read of an item stands in it."""
    kind = item.get("type")
    if not isinstance(kind, str | None) or kind not in _TEXT_ITEMS:
        return False
    if kind is None:
        return "role" in item  # Else it is a reference to an item.
    # A thought that is told by its id is looked up.
    return kind != "reasoning" or "id" not in item or is_whole_thought(item)


def _is_text(item: Mapping[str, Any]) -> bool:
    return _is_readable(item) and all(
        part.get("type") in (*_TEXT_PARTS, "input_audio") for part in _parts(item)
    )


def _has_part(item: Mapping[str, Any], kind: str) -> bool:
    return any(part.get("type") == kind for part in _parts(item))


def _parts(item: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of what a message says or a tool answers; a thought has none but texts."""
    if item.get("type") in ("reasoning", "shell_call_output"):
        return
    for name in ("content", "output"):
        content = item.get(name)
        for part in content if isinstance(content, list) else ():
            yield part if isinstance(part, dict) else {}


def _items(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the items of the input, none where it is a text. Raises E13."""
    value = body.get("input")
    if value is None:
        if _lies_elsewhere(body):
            return []
        raise missing("input")
    if isinstance(value, str):
        return []
    if not isinstance(value, list):
        raise wrong_type("input", "a string or an array of objects")
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise wrong_type(f"input[{index}]", "an object")
    return value


def _check_tools(holder: Mapping[str, Any], where: str) -> str:
    """Return by which parameter the provider may search, "" where it may not.

    Raises E14 for other tools that it runs by itself. `where` is the place of the holder.
    """
    tools = holder.get("tools")
    if tools is None:
        return ""
    if not isinstance(tools, list):
        raise wrong_type(f"{where}tools", "an array of objects")
    search = ""
    for index, tool in enumerate(tools):
        place = f"{where}tools[{index}]"
        if not isinstance(tool, dict):
            raise wrong_type(place, "an object")
        for key in tool:
            if key != "type" and folded(key) == "type":
                raise unsupported(f"{place}.{key}")
        kind = tool.get("type")
        if kind is None:
            raise missing(f"{place}.type")
        if not isinstance(kind, str):
            raise wrong_type(f"{place}.type", "a string")
        if _SEARCH_TOOL.fullmatch(kind):
            search = f"{place}.type"
        elif kind == "namespace":
            search = _check_tools(tool, f"{place}.") or search
        elif kind == "shell":
            _check_shell(tool, place)
        elif kind not in _CLIENT_TOOLS:
            raise unsupported(f"{place}.type")
    return search


def _check_shell(tool: Mapping[str, Any], place: str) -> None:
    """Raise E14 for a shell that does not run at the client's."""
    environment = tool.get("environment")
    kind = environment.get("type") if isinstance(environment, dict) else None
    if kind != "local":
        raise unsupported(f"{place}.environment")


def _check_reasoning(body: Mapping[str, Any]) -> None:
    """Raise E14 for a way to think that may cost more than its tokens."""
    reasoning = body.get("reasoning")
    if reasoning is None:
        return
    if not isinstance(reasoning, dict):
        raise wrong_type("reasoning", "an object")
    if reasoning.get("mode") not in (None, "standard"):
        raise unsupported("reasoning.mode")
