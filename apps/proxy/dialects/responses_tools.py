"""Tools that only OpenAI's Responses know, as functions, and the calls of these back again.

A custom tool takes any text, perhaps of a grammar: elsewhere it is a function with one argument, a
text, and the grammar is told in its description. A namespace holds the tools of one server: they
are called by both names in one. Codex edits files by the former, and calls MCP servers by the
latter. What a function stands for is read again from the client's own request.

Sources: https://platform.openai.com/docs/guides/function-calling (custom tools) and
https://github.com/openai/codex/blob/main/codex-rs/tools/src/tool_spec.rs
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from apps.proxy.dialects.neutral import Tool, WebSearch
from apps.proxy.dialects.openai_refusals import wrong_value
from apps.proxy.dialects.parameters import Parameters
from apps.proxy.dialects.tool_arguments import arguments_object, arguments_text
from apps.proxy.dialects.web_search import RESPONSES_TOOL, only_one, read_responses_search

_INPUT: Final = "input"
_CUSTOM_SCHEMA: Final = {
    "type": "object",
    "properties": {_INPUT: {"type": "string", "description": "The text that the tool takes."}},
    "required": [_INPUT],
    "additionalProperties": False,
}
_SEPARATOR: Final = "__"
# No dialect knows longer ones; that of a namespace is repeated with each of its tools.
_NAME_LENGTH_MAX: Final = 128


class ClientTool(NamedTuple):
    """How a client knows a tool that elsewhere is a plain function."""

    name: str
    namespace: str = ""
    is_custom: bool = False


def read_tools(given: Parameters) -> tuple[tuple[Tool, ...], WebSearch | None]:
    """Return the tools of a request, and whether the provider may search; raises E14 for others
    that OpenAI runs itself.
    """
    tools: list[Tool] = []
    searches: list[WebSearch] = []
    for tool in given.objects("tools"):
        kind = tool.text("type")
        if kind == RESPONSES_TOOL:
            searches.append(read_responses_search(tool, given))
        elif kind == "namespace":
            tools += _read_namespace(tool)
        else:
            tools.append(_read_tool(tool, ""))
    names: set[str] = set()
    for found in tools:
        if found.name in names:
            raise wrong_value(f"{found.at}.name", "another name than the other tools have")
        names.add(found.name)
    return tuple(tools), only_one(searches)


def _read_namespace(group: Parameters) -> list[Tool]:
    name, told = group.require_text("name"), group.text("description")
    found = [_read_tool(tool, name) for tool in group.objects("tools")]
    group.finish()
    if told and found:
        # What is told about all of them has no other place than the first: with each it would be
        # sent, and billed, as often as there are tools.
        first = found[0].description
        found[0] = found[0]._replace(description=f"{told}\n\n{first}" if first else told)
    return found


def _read_tool(tool: Parameters, namespace: str) -> Tool:
    kind = tool.require_text("type")
    if kind not in ("function", "custom"):
        raise tool.refuse("type")
    name = called_name(tool.require_text("name"), namespace)
    if len(name) > _NAME_LENGTH_MAX:
        raise wrong_value(tool.name("name"), f"at most {_NAME_LENGTH_MAX} characters")
    found = Tool(
        name=name,
        description=tool.text("description"),
        schema=_CUSTOM_SCHEMA,
        at=tool.at,
        schema_at=tool.name("parameters"),
    )
    if kind == "custom":
        found = found._replace(description=_described(tool, found.description or "") or None)
    else:
        # What is not told is strict for OpenAI only where the schema fits, and nowhere else.
        found = found._replace(
            schema=tool.mapping("parameters"), is_strict=True if tool.flag("strict") else None
        )
    tool.ignore("allowed_callers", unless=(["direct"],))
    tool.ignore("async", "defer_loading", unless=(False,))
    tool.finish()
    return found


def _described(tool: Parameters, description: str) -> str:
    """Return the description of a custom tool, with the form of what it takes."""
    form = tool.member("format")
    if form is None:
        return description
    kind = form.require_text("type")
    grammar = ""
    if kind == "grammar":
        syntax, definition = form.require_text("syntax"), form.require_text("definition")
        grammar = f"The input has to match this grammar ({syntax}):\n{definition}"
    elif kind != "text":
        raise form.refuse("type")
    form.finish()
    return "\n\n".join(text for text in (description, grammar) if text)


def called_name(name: str, namespace: str | None) -> str:
    """Return the name by which a model of another dialect calls a tool."""
    if not namespace:
        return name
    return f"{namespace.removesuffix(_SEPARATOR)}{_SEPARATOR}{name}"


def client_tools(asked: Mapping[str, Any]) -> dict[str, ClientTool]:
    """Return what the client of a request knows otherwise, by the names that models call.

    What is no tool is passed over: a request that was not converted was not read that closely.
    """
    found: dict[str, ClientTool] = {}
    for tool in asked.get("tools") or ():
        name, kind = tool.get("name"), tool.get("type")
        if not isinstance(name, str):
            continue
        if kind == "custom":
            found[name] = ClientTool(name, is_custom=True)
        members = tool.get("tools") if kind == "namespace" else None
        for member in members or ():
            own = member.get("name")
            if isinstance(own, str):
                is_custom = member.get("type") == "custom"
                found[called_name(own, name)] = ClientTool(own, name, is_custom)
    return found


def custom_arguments(text: str) -> str:
    """Return the arguments of the function that a custom tool became."""
    return arguments_text({_INPUT: text})


def custom_input(arguments: str) -> str:
    """Return the text for a custom tool: what else a model wrote comes whole."""
    called = arguments_object(arguments)
    text = called.get(_INPUT)
    return text if isinstance(text, str) and len(called) == 1 else arguments
