"""Which dialect a request speaks: its address tells, and for lists of models its headers."""

from __future__ import annotations

from typing import Final

from apps.providers.demo.dialects.anthropic import AnthropicDialect
from apps.providers.demo.dialects.dialect import DemoDialect
from apps.providers.demo.dialects.gemini import (
    CALLED,
    GeminiArrayDialect,
    GeminiDialect,
    is_google_key,
)
from apps.providers.demo.dialects.openai import OpenAIDialect
from apps.providers.demo.dialects.responses import ResponsesDialect
from apps.providers.demo.wire import Request

OPENAI: Final = OpenAIDialect()
ANTHROPIC: Final = AnthropicDialect()
RESPONSES: Final = ResponsesDialect()
GEMINI: Final = GeminiDialect()
GEMINI_ARRAY: Final = GeminiArrayDialect()


def find_dialect(request: Request) -> DemoDialect:
    """Return the dialect of a request; OpenAI's where nothing tells."""
    path = request.path.removeprefix("/v1")
    if path == "/chat/completions":
        return OPENAI
    if path == "/responses" or path.startswith("/responses/"):
        return RESPONSES
    if path == "/messages" or path.startswith("/messages/"):
        return ANTHROPIC
    if not path.removeprefix("beta").startswith("/models"):
        return OPENAI
    is_google = path.startswith("beta") or path.rpartition(":")[2] in CALLED
    if "anthropic-version" in request.headers and not is_google:
        return ANTHROPIC
    if is_google or is_google_key(request):
        is_array = path.endswith(":streamGenerateContent") and "alt=sse" not in request.query
        return GEMINI_ARRAY if is_array else GEMINI
    return OPENAI
