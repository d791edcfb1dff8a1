"""What a usage counts by the piece beside tokens: searches, tools, images, seconds, characters.

Each server has names of its own for them. A search is one that the provider ran, of whatever:
xAI's of X count like those of the web. A tool is what the provider ran itself and is no search;
so is a unit of Cohere's ranking, which is billed by the hundred documents.
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.core.usage import COUNTS, Usage
from apps.proxy.dialects.usage_reader import UsageReader

_HOLDERS: Final = frozenset(
    {
        "billed_units",
        "characters",
        "generated_images",
        "image_count",
        "num_search_queries",
        "num_server_side_tools_used",
        "plugins",
        "prompt_audio_seconds",
        "seconds",
        "server_side_tool_usage_details",
        "server_tool_use",
        "x_tools",
    }
)
# Of images, searches or tools in one call: each costs cents, and more than this cannot be true.
PIECES_MAX: Final = 2_048
_SERVER_TOOLS: Final = (
    "code_execution_requests",
    "tool_search_requests",
    "web_fetch_requests",
)


def read_pieces(reader: UsageReader, value: Mapping[str, Any]) -> Usage:
    """Return the counts of pieces in a usage object, and no tokens."""
    if _HOLDERS.isdisjoint(value):
        return Usage()
    server = reader.details(value, "server_tool_use")  # Anthropic, OpenRouter
    xai = reader.details(value, "server_side_tool_usage_details")
    # Alibaba: its Responses API, and its own API.
    qwen = reader.details(value, "x_tools", "plugins")
    billed = reader.details(value, "billed_units")  # Cohere
    searches = (
        reader.read(value, "num_search_queries") or 0,  # Perplexity
        reader.read(server, "web_search_requests") or 0,
        reader.read(xai, "web_search_calls") or 0,
        reader.read(xai, "x_search_calls") or 0,
        *(_uses(reader, qwen, name) for name in ("web_search", "search")),
    )
    web_search = reader.add(searches)
    ran = reader.read(value, "num_server_side_tools_used") or 0  # xAI: searches included
    tools = (
        max(ran - searches[2] - searches[3], 0),
        reader.read(billed, "search_units") or 0,
        *(reader.read(server, name) or 0 for name in _SERVER_TOOLS),
        *(_uses(reader, qwen, name) for name in ("code_interpreter", "web_extractor")),
    )
    tool_call = reader.add(tools)
    # Alibaba, ByteDance, and Cohere's embeddings of images.
    image = reader.read_any(value, "image_count", "generated_images")
    image = image or (reader.read(billed, "images") or 0)
    if max(image, web_search, tool_call) > PIECES_MAX:
        reader.is_suspect = True
    return Usage(
        image=image,
        # OpenAI's Whisper, Mistral.
        second=reader.read_begun(value, "seconds", "prompt_audio_seconds"),
        character=reader.read(value, "characters") or 0,  # Alibaba's speech
        web_search=web_search,
        tool_call=tool_call,
    )


def with_pieces(usage: Usage, pieces: Usage) -> Usage:
    """Return a usage with the counts of pieces of another one."""
    return usage._replace(**{name: getattr(pieces, name) for name in COUNTS})


def has_pieces(usage: Usage) -> bool:
    """Return whether a usage counts anything by the piece."""
    return any(getattr(usage, name) for name in COUNTS)


def _uses(reader: UsageReader, tools: Mapping[str, Any], name: str) -> int:
    return reader.read(reader.details(tools, name), "count") or 0
