"""Whether tools are to be called, where there are any: providers refuse to be told without.

Source: https://platform.openai.com/docs/api-reference/chat/create ("tool_choice")
"""

from typing import Final

from apps.proxy.dialects.neutral import Request, ToolChoice

_FORCED: Final = ("any", "tool")


def is_forced(choice: ToolChoice | None) -> bool:
    """Return whether a tool has to be called."""
    return choice is not None and choice.mode in _FORCED


def find_tool_choice(request: Request) -> ToolChoice | None:
    """Return what is to be told of the client's tools, None where nothing is.

    Raises E14 where one has to be called and there is none.
    """
    if request.tools:
        return request.tool_choice
    if is_forced(request.tool_choice):
        raise request.refuse("tool_choice")
    return None
