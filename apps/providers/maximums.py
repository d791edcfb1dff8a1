"""By which name servers of OpenAI's Chat Completions take a maximum of output. Pure data.

The base URL tells whose server it is. Here are those that document `max_tokens` alone: most of them
ignore the newer name, so that an answer is as long as it likes, and Mistral refuses it. All others
are asked by the newer name, which OpenAI wants, and which Azure, Bedrock, Cerebras, DashScope,
Fireworks, Groq, Moonshot, OpenRouter, Vertex AI, vLLM, Volcengine and xAI take as well.
"""

from __future__ import annotations

import re
from typing import Final

_USUAL: Final = "max_completion_tokens"
_OLDER: Final = "max_tokens"
# Of an origin.
_TAKE_THE_OLDER: Final = (
    # Source: https://api-docs.deepseek.com/api/create-chat-completion
    re.compile(r"[/.]deepseek\.com$"),
    # Source: https://docs.mistral.ai/api/endpoint/chat
    re.compile(r"[/.]mistral\.ai$"),
    # Sources: https://docs.bigmodel.cn/api-reference and https://docs.z.ai/api-reference
    re.compile(r"[/.](?:bigmodel\.cn|z\.ai)$"),
    # Source: https://docs.together.ai/reference/chat-completions-1
    re.compile(r"[/.]together\.(?:ai|xyz)$"),
    # Source: https://docs.siliconflow.cn/en/api-reference/chat-completions/chat-completions
    re.compile(r"[/.]siliconflow\.(?:cn|com)$"),
    # Source: https://docs.ollama.com/api/openai-compatibility; at home it is known by its port.
    re.compile(r"[/.]ollama\.com$|:11434$"),
)
_ORIGIN: Final = re.compile(r"https?://[^/?#]*")


def find_max_tokens_parameter(base_url: str) -> str:
    """Return the parameter by which the server at a base URL takes a maximum of output."""
    found = _ORIGIN.match(base_url.lower())
    origin = found[0].removesuffix(":443") if found else ""
    is_older = any(server.search(origin) for server in _TAKE_THE_OLDER)
    return _OLDER if is_older else _USUAL
