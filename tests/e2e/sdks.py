"""The official SDKs of Anthropic and Google, as clients of a stage; OpenAI's is `Stage.client`."""

from __future__ import annotations

import anthropic
from google import genai
from google.genai import types

from tests.support.bench import Stage


def anthropic_of(stage: Stage) -> anthropic.Anthropic:
    """Return Anthropic's SDK for a stage. It tries nothing again."""
    return anthropic.Anthropic(
        api_key=stage.caller.raw, base_url=stage.bench.gateway.url, timeout=20, max_retries=0
    )


def google_of(stage: Stage) -> genai.Client:
    """Return Google's SDK for a stage."""
    options = types.HttpOptions(base_url=stage.bench.gateway.url, timeout=20_000)
    return genai.Client(api_key=stage.caller.raw, http_options=options)
