"""Schemas of the arguments of tools, as OpenAI takes them.

It refuses an object that does not tell its properties, also where there are none, and with it the
whole request.

Source: https://github.com/containers/kubernetes-mcp-server/issues/340
"""

from typing import Any

from apps.proxy.dialects.neutral import Tool


def told_schema(tool: Tool) -> dict[str, Any] | None:
    """Return the schema of a tool's arguments, None where it takes none: `{}` says so, too."""
    if not tool.schema:
        return None
    told = dict(tool.schema)
    if told.get("type") == "object" and told.get("properties") is None:
        told["properties"] = {}
    return told
