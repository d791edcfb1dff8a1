"""Usage in the own words of servers that run on one's own machines: Ollama, llama.cpp, LM Studio.

Sources: https://docs.ollama.com/api/usage,
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md,
https://lmstudio.ai/docs/developer/rest/chat
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.core.usage import Usage
from apps.proxy.dialects.usage_reader import UsageReader, disjoint

LOCAL_NAMES: Final = frozenset(
    {"eval_count", "prompt_eval_count", "tokens_evaluated", "tokens_predicted"}
    | {"total_output_tokens"}
)


def parse_local_usage(value: Mapping[str, Any]) -> Usage | None:
    """Return what such an object says, None if nothing in it can be used.

    The prompt includes what was cached of it, and the output includes reasoning.
    """
    reader = UsageReader()
    read = reader.read(value, "prompt_eval_count", "tokens_evaluated", "input_tokens")
    written = reader.read(value, "eval_count", "tokens_predicted", "total_output_tokens")
    if read is None and written is None:
        return None
    if read is None:
        # Ollama leaves out the count of a prompt that it had in its cache.
        reader.is_suspect = True
    parts = Usage(
        cache_read=reader.read_any(value, "prompt_eval_cached_count"),
        reasoning=reader.read_any(value, "reasoning_output_tokens"),
    )
    return disjoint(reader, parts, read=read or 0, written=written or 0)
