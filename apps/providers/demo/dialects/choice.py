"""Which dialect a request speaks: its address tells."""

from __future__ import annotations

from typing import Final

from apps.providers.demo.dialects.dialect import Dialect
from apps.providers.demo.dialects.openai import OpenAIDialect
from apps.providers.demo.wire import Request

OPENAI: Final = OpenAIDialect()


def find_dialect(request: Request) -> Dialect:
    """Return the dialect of a request; OpenAI's where nothing tells."""
    return OPENAI
