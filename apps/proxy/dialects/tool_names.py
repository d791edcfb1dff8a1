"""Names of tools, for those who take few characters in them: OpenAI and Anthropic.

Sources: https://platform.openai.com/docs/api-reference/chat/create ("tools") and
https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use
"""

import re
from typing import Final

from apps.proxy.dialects.neutral import Tool
from apps.proxy.dialects.openai_refusals import inexpressible

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]+")


def told_name(tool: Tool, length_max: int) -> str:
    """Return the name of a tool. Raises E14 for one that is longer, or has other characters."""
    if len(tool.name) > length_max or _NAME.fullmatch(tool.name) is None:
        raise inexpressible(f"{tool.at}.name")
    return tool.name
