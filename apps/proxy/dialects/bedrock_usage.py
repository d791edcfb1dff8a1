"""Bedrock's `TokenUsage` (Converse): `inputTokens` leave the cache out, the total does not.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.core.usage import Usage
from apps.proxy.dialects.usage_reader import UsageReader, cache_writes, disjoint, include

BEDROCK_NAMES: Final = frozenset({"inputTokens", "outputTokens"})
_LIFETIMES: Final = {"5m": "ephemeral_5m_input_tokens", "1h": "ephemeral_1h_input_tokens"}


def parse_bedrock_usage(value: Mapping[str, Any]) -> Usage | None:
    """Return what a `TokenUsage` object says, None if nothing in it can be used."""
    reader = UsageReader()
    read = reader.read(value, "inputTokens")
    written = reader.read(value, "outputTokens")
    if read is None and written is None:
        return None
    if read is None or written is None:
        reader.is_suspect = True
    lifetimes = {
        _LIFETIMES[ttl]: entry.get("inputTokens")
        for entry in reader.entries(value, "cacheDetails")
        if (ttl := entry.get("ttl")) in ("5m", "1h")
    }
    five_minutes, hour = cache_writes(
        reader,
        reader.read_any(value, "cacheWriteInputTokens", "cacheWriteInputTokenCount") or None,
        lifetimes,
    )
    cached = reader.read_any(value, "cacheReadInputTokens", "cacheReadInputTokenCount")
    cache = cached + five_minutes + hour
    total = reader.read(value, "totalTokens")
    if total is None:
        total = reader.add((read or 0, written or 0, cache))
    whole, written, _ = include(reader, (read or 0, written or 0), total, cache=cache, reasoning=0)
    parts = Usage(cache_read=cached, cache_write_5m=five_minutes, cache_write_1h=hour)
    return disjoint(reader, parts, read=whole, written=written)
