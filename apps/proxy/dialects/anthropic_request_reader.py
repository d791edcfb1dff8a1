"""Reads requests of Anthropic's Messages API into the neutral form.

Source: https://platform.claude.com/docs/en/api/messages. Tools that Anthropic runs itself, other
than a search, or whose shape only its models know, are refused by name: no other provider has them.
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.proxy.dialects.cache_marks import read_cache_mark
from apps.proxy.dialects.media_sources import usual_type
from apps.proxy.dialects.neutral import (
    Document,
    Effort,
    Image,
    OutputFormat,
    Part,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
    WebSearch,
)
from apps.proxy.dialects.openai_refusals import below_one, missing, wrong_type, wrong_value
from apps.proxy.dialects.parameters import Parameters
from apps.proxy.dialects.reasoning import EFFORTS, read_thinking
from apps.proxy.dialects.tool_arguments import arguments_text
from apps.proxy.dialects.web_search import ANTHROPIC_TOOL, only_one, read_anthropic_search

_ROLES: Final = ("user", "assistant", "system")
_EFFORTS: Final = tuple(effort for effort in EFFORTS if effort != "minimal")
_CHOICES: Final = ("auto", "any", "none", "tool")
# What only tidies up thoughts, and these are not passed on in any case.
_THOUGHT_EDITS: Final = "clear_thinking_"
_NAMES: Final = {
    "output_limit": "max_tokens",
    "stop": "stop_sequences",
    "user": "metadata.user_id",
    "format": "output_config.format",
    "is_standard_tier": "service_tier",
    "turns": "messages",
}


def read_request(body: Mapping[str, Any]) -> Request:
    """Return what a request says; raises E13 and E14 with the parameter at fault."""
    given = Parameters(body)
    limit = given.integer("max_tokens")
    if limit is None:
        raise missing("max_tokens")
    if limit < 1:
        raise below_one("max_tokens")
    tool_choice, is_parallel = _tool_choice(given)
    output = given.member("output_config")
    output_format, effort = (None, None) if output is None else _output(output)
    thinking = given.member("thinking")
    reasoning = None if thinking is None else read_thinking(thinking)
    if effort is not None:
        reasoning = (reasoning or Reasoning())._replace(effort=effort)
    metadata = given.member("metadata")
    user = None if metadata is None else metadata.text("user_id")
    if metadata is not None:
        metadata.finish()
    tier = given.one_of("service_tier", ("auto", "standard_only"))
    turns = _turns(given)
    tools, web_search = _tools(given)
    request = Request(
        model=given.require_text("model"),
        system=_system(given),
        turns=turns,
        tools=tools,
        web_search=web_search,
        tool_choice=tool_choice,
        is_parallel=is_parallel,
        reasoning=reasoning,
        format=output_format,
        output_limit=limit,
        temperature=given.number("temperature", 0, 1),
        top_p=given.number("top_p", 0, 1),
        top_k=given.integer("top_k"),
        stop=given.texts("stop_sequences"),
        user=user or "",
        is_standard_tier=True if tier == "standard_only" else None,
        cache=read_cache_mark(given),
        is_stream=given.flag("stream") or False,
        is_continued=turns[-1].role == "assistant",
        names={
            **_NAMES,
            "reasoning": "thinking" if thinking is not None else "output_config.effort",
        },
    )
    _check_edits(given)
    given.finish()
    return request


def _check_edits(given: Parameters) -> None:
    """Raise E14 for an edit of the conversation that only Anthropic could make."""
    management = given.member("context_management")
    if management is None:
        return
    for edit in management.objects("edits"):
        if not edit.require_text("type").startswith(_THOUGHT_EDITS):
            raise edit.refuse("type")
        edit.ignore("keep")
        edit.finish()
    management.finish()


def _output(output: Parameters) -> tuple[OutputFormat | None, Effort | None]:
    asked = output.member("format")
    found: OutputFormat | None = None
    if asked is not None:
        if asked.require_text("type") != "json_schema":
            raise asked.refuse("type")
        schema = asked.mapping("schema")
        if schema is None:
            raise missing(asked.name("schema"))
        found = OutputFormat(schema, at=asked.name("schema"))
        asked.finish()
    name = output.one_of("effort", _EFFORTS)
    output.finish()
    return found, next((effort for effort in EFFORTS if effort == name), None)


def _tool_choice(given: Parameters) -> tuple[ToolChoice | None, bool | None]:
    """Return which tools are to be called, and whether several at once."""
    choice = given.member("tool_choice")
    if choice is None:
        return None, None
    mode = choice.one_of("type", _CHOICES)
    is_serial = choice.flag("disable_parallel_tool_use")
    found: ToolChoice
    if mode == "tool":
        found = ToolChoice("tool", choice.require_text("name"))
    elif mode == "any":
        found = ToolChoice("any")
    elif mode == "none":
        found = ToolChoice("none")
    elif mode == "auto":
        found = ToolChoice("auto")
    else:
        raise missing(choice.name("type"))
    choice.finish()
    return found, None if is_serial is None else not is_serial


def _tools(given: Parameters) -> tuple[tuple[Tool, ...], WebSearch | None]:
    """Return the client's tools, and whether the provider may search."""
    tools: list[Tool] = []
    searches: list[WebSearch] = []
    for tool in given.objects("tools"):
        if tool.text("type") == ANTHROPIC_TOOL:
            searches.append(read_anthropic_search(tool))
        else:
            tools.append(_read_tool(tool))
    return tuple(tools), only_one(searches)


def _read_tool(tool: Parameters) -> Tool:
    if (tool.text("type") or "custom") != "custom":
        raise tool.refuse("type")
    schema = tool.mapping("input_schema")
    if schema is None:
        raise missing(tool.name("input_schema"))
    found = Tool(
        name=tool.require_text("name"),
        description=tool.text("description"),
        schema=schema,
        is_strict=tool.flag("strict"),
        at=tool.at,
        schema_at=tool.name("input_schema"),
        cache=read_cache_mark(tool),
    )
    # How large the pieces of a stream are is the provider's business.
    tool.ignore("eager_input_streaming")
    tool.ignore("allowed_callers", unless=(["direct"],))
    tool.ignore("defer_loading", unless=(False,))
    tool.finish()
    return found


def _system(given: Parameters) -> tuple[Text, ...]:
    return tuple(_only_text(part, at) for part, at in _blocks(given, "system"))


def _turns(given: Parameters) -> tuple[Turn, ...]:
    messages = given.objects("messages")
    if not messages:
        raise missing("messages")
    turns: list[Turn] = []
    for message in messages:
        role = message.one_of("role", _ROLES)
        blocks = _blocks(message, "content")
        if role == "system":
            turns.append(
                Turn("system", tuple(_only_text(part, at) for part, at in blocks), message.at)
            )
        elif role == "user":
            turns.append(Turn("user", tuple(part for part, _ in blocks), message.at))
        elif role == "assistant":
            turns.append(Turn("assistant", tuple(part for part, _ in blocks), message.at))
        else:
            raise missing(message.name("role"))
        message.finish()
    return tuple(turns)


def _only_text(part: Part, at: str) -> Text:
    if not isinstance(part, Text):
        raise wrong_value(at, "a text")
    return part


def _blocks(holder: Parameters, name: str) -> list[tuple[Part, str]]:
    """Return the parts of a content, each with its place."""
    content = holder.take(name)
    if content is None:
        return []
    if isinstance(content, str):
        return [(Text(content, at=holder.name(name)), holder.name(name))]
    if not isinstance(content, list):
        raise wrong_type(holder.name(name), "a string or an array of objects")
    found: list[tuple[Part, str]] = []
    for block in Parameters({name: content}, holder.at).objects(name):
        found.append((_read_block(block), block.at))
        block.finish()
    return found


def _read_block(block: Parameters) -> Part:
    kind = block.require_text("type")
    if kind == "text":
        return Text(block.require_text("text"), at=block.at, cache=read_cache_mark(block))
    if kind == "image":
        return _read_image(block)
    if kind == "document":
        return _read_document(block)
    if kind == "thinking":
        return Thinking(block.text("thinking") or "", block.text("signature") or "", at=block.at)
    if kind == "redacted_thinking":
        return Thinking(redacted=block.require_text("data"), at=block.at)
    if kind == "tool_use":
        # Tools may call tools; only what the model itself called has an equal.
        caller = block.member("caller")
        if caller is not None:
            if caller.text("type") != "direct":
                raise block.refuse("caller")
            caller.finish()
        return ToolUse(
            id=block.require_text("id"),
            name=block.require_text("name"),
            arguments=arguments_text(block.mapping("input") or {}),
            at=block.at,
            cache=read_cache_mark(block),
        )
    if kind == "tool_result":
        return _read_result(block)
    raise block.refuse("type")


def _read_result(block: Parameters) -> ToolResult:
    parts: list[Text | Image | Document] = []
    for part, at in _blocks(block, "content"):
        if not isinstance(part, Text | Image | Document):
            raise wrong_value(at, "a text, an image or a document")
        parts.append(part)
    return ToolResult(
        id=block.require_text("tool_use_id"),
        parts=tuple(parts),
        is_error=block.flag("is_error") or False,
        at=block.at,
        cache=read_cache_mark(block),
    )


def _read_image(block: Parameters) -> Image:
    source = block.require_object("source")
    cache = read_cache_mark(block)
    kind = source.require_text("type")
    if kind == "url":
        image = Image(source.require_text("url"), at=source.at, cache=cache)
    elif kind == "base64":
        media_type, data = source.require_text("media_type"), source.require_text("data")
        image = Image("", usual_type(media_type), data, at=source.at, cache=cache)
    else:
        # Such as a file, which lies with Anthropic.
        raise source.refuse("type")
    source.finish()
    return image


def _read_document(block: Parameters) -> Document:
    source = block.require_object("source")
    kind = source.require_text("type")
    document = Document(
        title=block.text("title") or "",
        context=block.text("context") or "",
        at=source.at,
        cache=read_cache_mark(block),
    )
    if kind == "url":
        document = document._replace(url=source.require_text("url"))
    elif kind == "text":
        source.ignore("media_type", unless=("text/plain",))
        document = document._replace(text=source.require_text("data"))
    elif kind == "base64":
        document = document._replace(
            media_type=source.require_text("media_type"), data=source.require_text("data")
        )
    else:
        raise source.refuse("type")
    source.finish()
    citations = block.member("citations")
    if citations is not None and citations.flag("enabled"):
        raise block.refuse("citations")
    return document
