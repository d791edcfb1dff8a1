"""Writes what is said as blocks of Anthropic's Messages API.

Source: https://platform.claude.com/docs/en/api/messages
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from apps.proxy.dialects.cache_marks import cache_members
from apps.proxy.dialects.neutral import (
    Document,
    Image,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
)
from apps.proxy.dialects.openai_refusals import inexpressible
from apps.proxy.dialects.sealed_thoughts import is_anthropics
from apps.proxy.dialects.tool_arguments import arguments_object

_IMAGE_TYPES: Final = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
_PDF: Final = "application/pdf"
# Source: https://github.com/maximhq/bifrost/issues/5097 (what Anthropic answers to others)
_FOREIGN_IN_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")


def says_something(part: Part) -> bool:
    """Return whether a part can be told: blanks alone and an unsigned thought are refused.

    Source: https://github.com/anthropics/claude-code/issues/23440
    """
    if isinstance(part, Text | Refusal):
        return bool(part.text.strip())
    return not isinstance(part, Thinking) or is_signed(part)


def is_signed(thought: Thinking) -> bool:
    """Return whether a thought can be given back to Anthropic.

    Not those of another provider, nor those whose signature a client lost.
    """
    return bool(thought.redacted) or is_anthropics(thought.signature)


def content(parts: Sequence[Part]) -> str | list[dict[str, Any]]:
    """Return a content: a text where that says all, else blocks."""
    blocks = [_block(part) for part in parts if says_something(part)]
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        text: str = blocks[0]["text"]
        return text
    return blocks


def _block(part: Part) -> dict[str, Any]:
    """Return a part as a block."""
    if isinstance(part, Text):
        return {"type": "text", "text": part.text, **cache_members(part.cache)}
    if isinstance(part, Refusal):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        return _image(part)
    if isinstance(part, Document):
        return _document(part)
    if isinstance(part, Thinking):
        return _thinking(part)
    if isinstance(part, ToolUse):
        return {
            "type": "tool_use",
            "id": _id(part.id),
            "name": part.name,
            "input": arguments_object(part.arguments),
            **cache_members(part.cache),
        }
    if isinstance(part, ToolResult):
        inner = content(part.parts)
        return {
            "type": "tool_result",
            "tool_use_id": _id(part.id),
            **({"content": inner} if inner else {}),
            **({"is_error": True} if part.is_error else {}),
            **cache_members(part.cache),
        }
    raise inexpressible(part.at)


def _id(identifier: str) -> str:
    """Return an id of a tool call with this dialect's characters, the same for the same one."""
    return _FOREIGN_IN_ID.sub(lambda found: f"_{ord(found[0]):x}_", identifier)


def _thinking(part: Thinking) -> dict[str, Any]:
    if part.redacted:
        return {"type": "redacted_thinking", "data": part.redacted}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _image(part: Image) -> dict[str, Any]:
    if part.url:
        source = {"type": "url", "url": part.url}
    elif part.media_type in _IMAGE_TYPES:
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
    else:
        raise inexpressible(part.at)
    return {"type": "image", "source": source, **cache_members(part.cache)}


def _document(part: Document) -> dict[str, Any]:
    if part.url:
        source = {"type": "url", "url": part.url}
    elif part.text:
        source = {"type": "text", "media_type": "text/plain", "data": part.text}
    elif part.media_type == _PDF:
        source = {"type": "base64", "media_type": _PDF, "data": part.data}
    else:
        raise inexpressible(part.at)
    told = {"title": part.title, "context": part.context}
    return {
        "type": "document",
        "source": source,
        **{name: value for name, value in told.items() if value},
        **cache_members(part.cache),
    }
