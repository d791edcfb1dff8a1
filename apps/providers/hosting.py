"""Where clouds serve another maker's dialect at addresses and with bodies of their own. Pure data.

The base URL of a provider tells which one it is, by the end of its path. What clouds serve just as
its maker does is not here: Gemini and OpenAI's dialect on Vertex AI, OpenAI's on Bedrock.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import quote


class Hosting(NamedTuple):
    """How requests of a dialect differ where a cloud takes them."""

    name: str
    dialect: str
    base_path: re.Pattern[str]  # the end of a base URL, without its query
    whole: str  # where a whole answer is asked for, below the base URL
    stream: str
    version: str  # `anthropic_version`, which stands in the body
    names_stream: bool = False  # the body says whether it is one, too
    has_betas_in_body: bool = False  # and no header of the dialect goes on
    is_framed: bool = False  # streams come in Amazon's frames

    def path(self, upstream_name: str, *, is_stream: bool) -> str:
        """Return where a model is asked, below the base URL."""
        name = quote(upstream_name, safe="@")
        return (self.stream if is_stream else self.whole).replace("{model}", name)


# Source: https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai
VERTEX_ANTHROPIC: Final = Hosting(
    name="vertex-anthropic",
    dialect="anthropic",
    base_path=re.compile(r"/publishers/anthropic$"),
    whole="models/{model}:rawPredict",
    stream="models/{model}:streamRawPredict",
    version="vertex-2023-10-16",
    names_stream=True,
)
# Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html and
# https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html
BEDROCK_ANTHROPIC: Final = Hosting(
    name="bedrock-anthropic",
    dialect="anthropic",
    base_path=re.compile(r"/model$"),
    whole="{model}/invoke",
    stream="{model}/invoke-with-response-stream",
    version="bedrock-2023-05-31",
    has_betas_in_body=True,
    is_framed=True,
)
HOSTINGS: Final = (VERTEX_ANTHROPIC, BEDROCK_ANTHROPIC)


def find_hosting(dialect: str, base_url: str) -> Hosting | None:
    """Return how a dialect is served at a base URL, None where it is as its maker does."""
    address = base_url.partition("?")[0].rstrip("/")
    for hosting in HOSTINGS:
        if hosting.dialect == dialect and hosting.base_path.search(address) is not None:
            return hosting
    return None
