"""Whole answers of Anthropic's Messages API, as far as their charge goes.

Source: https://platform.claude.com/docs/en/api/messages. What a block says that nobody knows here
is the client's business: it passes.
"""

from collections.abc import Iterator
from typing import Any, Final

from apps.core.errors import GatewayError
from apps.proxy.dialects.anthropic_usage import is_billed_refusal, parse_anthropic_usage
from apps.proxy.dialects.metered_answer import MeteredAnswer, load_answer
from apps.proxy.dialects.parsed_request import Endpoint
from apps.proxy.dialects.stream_meter import clean_label
from apps.proxy.dialects.tool_arguments import arguments_text
from apps.proxy.estimate import Excerpt, excerpt

_THOUGHT: Final = "thinking"
_TEXTS: Final = ("text", _THOUGHT)


def read_metered_answer(endpoint: Endpoint, body: bytes) -> MeteredAnswer:
    """Return what a message holds; raises E49 if it is none."""
    document = load_answer(body)
    blocks = document.get("content")
    if document.get("type") != "message" or not isinstance(blocks, list):
        raise GatewayError("E49")
    if not all(isinstance(block, dict) for block in blocks):
        raise GatewayError("E49")
    reported = document.get("usage")
    usage = parse_anthropic_usage(reported) if isinstance(reported, dict) else None
    return MeteredAnswer(
        usage=usage,
        is_usage_unusable=usage is None and reported is not None,
        finish_reason=clean_label(document.get("stop_reason")),
        has_content=any(map(_says_something, blocks)),
        excerpts=lambda: [part for block in blocks for part in _excerpts(block)],
        document=document,
        choices=1,
        characters=sum(len(text) for block in blocks for text in _texts(block)),
        service_tier=clean_label(reported.get("service_tier"))
        if isinstance(reported, dict)
        else None,
        is_billed_refusal=is_billed_refusal(document),
    )


def _says_something(block: dict[str, Any]) -> bool:
    return block.get("type") == "tool_use" or any(_texts(block)) or bool(block.get("data"))


def _texts(block: dict[str, Any]) -> Iterator[str]:
    for name in _TEXTS:
        text = block.get(name)
        if isinstance(text, str):
            yield text


def _excerpts(block: dict[str, Any]) -> Iterator[Excerpt]:
    for name in _TEXTS:
        text = block.get(name)
        if isinstance(text, str):
            yield excerpt(text, is_thought=name == _THOUGHT)
    if block.get("type") == "tool_use" and isinstance(block.get("input"), dict):
        yield excerpt(str(block.get("name")) + arguments_text(block["input"]))
