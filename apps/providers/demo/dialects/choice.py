"""Which dialect a request speaks: its address tells, and for the models a header."""

from __future__ import annotations

from typing import Final

from apps.providers.demo.dialects.anthropic import AnthropicDialect
from apps.providers.demo.dialects.dialect import Dialect
from apps.providers.demo.dialects.openai import OpenAIDialect
from apps.providers.demo.wire import Request

OPENAI: Final = OpenAIDialect()
ANTHROPIC: Final = AnthropicDialect()


def find_dialect(request: Request) -> Dialect:
    """Return the dialect of a request; OpenAI's where nothing tells."""
    path = request.path.removeprefix("/v1")
    if path == "/chat/completions":
        return OPENAI
    if path == "/messages" or path.startswith("/messages/"):
        return ANTHROPIC
    is_models = path == "/models" or path.startswith("/models/")
    if is_models and "anthropic-version" in request.headers:
        return ANTHROPIC
    return OPENAI
