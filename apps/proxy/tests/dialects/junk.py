"""Anything that JSON can say, by the names and words that readers look for."""

from typing import Final

from hypothesis import strategies as st

# Where junk may stand in a request, by the names that readers look for.
_REQUEST_NAMES: Final = (
    "args", "arguments", "budget_tokens", "cache_control", "caller", "citations", "content",
    "data", "edits", "effort", "file", "file_data", "fileData", "fileUri", "format", "function",
    "functionCall", "functionResponse", "id", "image_url", "inlineData", "input", "input_audio",
    "input_schema", "is_error", "json_schema", "mimeType", "mode", "name", "parameters", "parts",
    "reasoning_content", "refusal", "response", "role", "schema", "source", "text", "thinking",
    "thinking_blocks", "thought", "thoughtSignature", "tool_call_id", "tool_calls", "tool_use_id",
    "ttl", "type", "url", "user_id",
)  # fmt: skip
_REQUEST_WORDS: Final = (
    "text", "image", "image_url", "document", "file", "tool_use", "tool_result", "thinking",
    "redacted_thinking", "function", "custom", "base64", "url", "user", "assistant", "system",
    "tool", "auto", "any", "none", "adaptive", "enabled", "json_schema", "ephemeral",
    "data:image/png;base64,AA==", "image/png", "audio/wav", "application/pdf", "ANY", "model",
    "AA==", "x", "",
)  # fmt: skip
REQUEST_JUNK: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 5000)
    | st.floats(0, 2)
    | st.sampled_from(_REQUEST_WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_REQUEST_NAMES), inner, max_size=6)
    ),
    max_leaves=25,
)

# Where junk may stand in an event, by the names that readers look for.
_EVENT_NAMES: Final = (
    "args", "arguments", "candidates", "choices", "content", "content_block", "data", "delta",
    "error", "finish_reason", "finishReason", "function", "functionCall", "id", "index", "input",
    "item", "message", "model", "name", "output", "output_index", "part", "partial_json", "parts",
    "promptFeedback", "reasoning", "refusal", "response", "signature", "status", "stop_reason",
    "summary", "text", "thinking", "thinking_blocks", "thought", "thoughtSignature", "tool_calls",
    "type", "usage", "usageMetadata",
)  # fmt: skip
_EVENT_WORDS: Final = (
    "text", "thinking", "tool_use", "redacted_thinking", "text_delta", "input_json_delta",
    "thinking_delta", "signature_delta", "message_start", "content_block_start",
    "content_block_delta", "content_block_stop", "message_delta", "message_stop",
    "response.output_item.added", "response.output_item.done", "response.content_part.added",
    "response.output_text.delta", "response.reasoning_text.delta", "response.refusal.delta",
    "response.function_call_arguments.delta", "response.completed", "message", "reasoning",
    "function_call", "output_text", "x", "",
)  # fmt: skip
EVENT_JUNK: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(_EVENT_WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_EVENT_NAMES), inner, max_size=5)
    ),
    max_leaves=20,
)
