"""Whole answers of OpenAI's Responses, as far as their charge goes.

Source: https://platform.openai.com/docs/api-reference/responses/object. What an item says that
nobody knows here is the client's business: it passes. Searches are items, and not in the usage.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.metered_answer import MeteredAnswer, load_answer
from apps.proxy.dialects.openai_usage import parse_usage
from apps.proxy.dialects.parsed_request import Endpoint
from apps.proxy.dialects.responses_stored import kept_ids
from apps.proxy.dialects.stream_meter import clean_label
from apps.proxy.estimate import Excerpt, excerpt

SEARCH_ITEM: Final = "web_search_call"
_COMPLETE: Final = ("completed", "incomplete")
_CALLS: Final = ("custom_tool_call", "function_call")
# What an item says, by its members.
_TEXTS: Final = ("arguments", "input", "name")
_PARTS: Final = ("content", "summary")
_THOUGHT: Final = "reasoning"  # the type of an item that is nothing else


def read_metered_answer(endpoint: Endpoint, body: bytes) -> MeteredAnswer:
    """Return what a response holds; raises E49 if it is none, or not one that is complete."""
    document = load_answer(body)
    items = document.get("output")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise GatewayError("E49")
    if document.get("status", "completed") not in _COMPLETE:
        raise GatewayError("E49")
    usage = reported_usage(document)
    return MeteredAnswer(
        usage=usage,
        is_usage_unusable=usage is None and document.get("usage") is not None,
        finish_reason=finish_reason(document),
        has_content=any(map(says_something, items)),
        excerpts=lambda: excerpts_of(document),
        document=document,
        choices=1,
        characters=sum(len(text) for item in items for text in texts_of(item)),
        service_tier=clean_label(document.get("service_tier")),
        stored_ids=kept_ids(document),
    )


def reported_usage(response: Mapping[str, Any]) -> Usage | None:
    """Return what a response says was used, with the searches that it made."""
    usage = parse_usage(response.get("usage"))
    if usage is None:
        return None
    items = response.get("output")
    searches = sum(map(is_search, items)) if isinstance(items, list) else 0
    return usage._replace(web_search=searches) if searches > usage.web_search else usage


def finish_reason(response: Mapping[str, Any]) -> str | None:
    """Return why a response ended: its status, or what cut it short."""
    details = response.get("incomplete_details")
    reason = clean_label(details.get("reason")) if isinstance(details, Mapping) else None
    return reason or clean_label(response.get("status"))


def is_search(item: object) -> bool:
    """Return whether an item is a search, and not a page that was opened or read.

    Source: https://platform.openai.com/docs/guides/tools-web-search
    """
    if not isinstance(item, Mapping) or item.get("type") != SEARCH_ITEM:
        return False
    action = item.get("action")
    kind = action.get("type") if isinstance(action, Mapping) else None
    return kind in (None, "search")


def says_something(item: Mapping[str, Any]) -> bool:
    """Return whether an item holds anything that the model wrote."""
    return item.get("type") in _CALLS or any(texts_of(item)) or bool(item.get("encrypted_content"))


def texts_of(item: Mapping[str, Any]) -> Iterator[str]:
    """Yield all that an item says."""
    for name in _TEXTS:
        text = item.get(name)
        if isinstance(text, str):
            yield text
    for name in _PARTS:
        parts = item.get(name)
        for part in parts if isinstance(parts, list) else ():
            for member in ("text", "refusal"):
                text = part.get(member) if isinstance(part, Mapping) else None
                if isinstance(text, str):
                    yield text


def excerpts_of(response: Mapping[str, Any]) -> list[Excerpt]:
    """Return all that a response says."""
    items = response.get("output")
    return [
        excerpt(text, is_thought=item.get("type") == _THOUGHT)
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, Mapping)
        for text in texts_of(item)
    ]
